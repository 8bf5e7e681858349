"""An experiment's data: the right pixels, made once and then opened, damage told."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_release import NUM_TEST, NUM_TRAIN, caption, pixels

from input_pipeline.errors import DataError
from input_pipeline.images import decoded
from input_pipeline.splits import assembly, loading


def test_shapes_types_and_pixels(load_small):
    data = load_small()
    sizes = ((data.train, 8, 24), (data.validation, 2, 16), (data.test, 3, 16))
    for examples, count, size in sizes:
        captions, concepts = 5 * count, len(data.concepts)
        assert len(examples.file_names) == count
        assert len(examples.captions) == captions
        assert examples.image_of_caption.tolist() == np.repeat(range(count), 5).tolist()
        expected = {
            "images": ((count, size, size, 3), np.uint8),
            "image_ids": ((count,), np.int64),
            "image_of_caption": ((captions,), np.int32),
            "tokens": ((captions, 11), np.int32),
            "lengths": ((captions,), np.int32),
            "word_concepts": ((captions, concepts), np.uint8),
            "image_concepts": ((count, concepts), np.float32),
        }
        for name, kind in expected.items():
            array = getattr(examples, name)
            assert (array.shape, array.dtype) == kind, name
        for row, image_id in enumerate(examples.image_ids):
            assert examples.file_names[row] == f"{image_id}.png"
            expected = Image.fromarray(pixels(image_id)).resize((size, size), 2)
            np.testing.assert_array_equal(examples.images[row], np.asarray(expected))
            assert examples.captions[5 * row + 4] == caption(image_id, 4)


def test_each_seed_and_size_has_its_own_arrays(load_small):
    first, other = load_small(seed=0), load_small(seed=1)
    assert first.train.image_ids.tolist() != other.train.image_ids.tolist()
    assert load_small(seed=0).train.image_ids.tolist() == first.train.image_ids.tolist()
    assert load_small(image_size=20).test.images.shape == (3, 20, 20, 3)


def test_nothing_is_made_twice(load_small, monkeypatch):
    first = load_small()
    monkeypatch.setattr(decoded, "resize", None)
    monkeypatch.setattr(assembly, "learn", None)
    again = load_small()
    assert list(again.train.captions) == list(first.train.captions)
    np.testing.assert_array_equal(np.asarray(again.train.images), np.asarray(first.train.images))
    with pytest.raises(TypeError):  # other settings are learnt anew
        load_small(min_count=2)
    monkeypatch.setattr(loading, "_code_version", lambda: "another")
    with pytest.raises(TypeError):  # and so they are with other code
        load_small()


def test_everything_is_memory_mapped_and_read_only(load_small):
    examples = load_small().train
    for field in dataclasses.fields(examples):
        array = getattr(examples, field.name)
        if isinstance(array, np.ndarray):
            assert isinstance(array, np.memmap), field.name
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0


def test_images_that_are_left_out_are_told(load_small, small_source):
    assert load_small().left_out == {}
    (small_source / "images" / "3.png").unlink()
    (small_source / "images" / "11.png").write_bytes(b"")
    data = load_small(bad_images="skip")
    assert data.left_out == {"3.png": "missing", "11.png": "it is empty (0 bytes)"}
    ids = [*data.train.image_ids, *data.validation.image_ids, *data.test.image_ids]
    assert sorted(ids) == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 12]


def test_folds_are_other_images_and_share_the_decoded_ones(load_small, monkeypatch):
    folds = [load_small(fold=fold, train_size=16) for fold in range(4)]
    validated = [tuple(fold.validation.image_ids.tolist()) for fold in folds]
    assert len(set(validated)) > 1
    for data in folds:
        assert sorted([*data.train.image_ids, *data.validation.image_ids]) == list(range(NUM_TRAIN))
    monkeypatch.setattr(decoded, "resize", None)
    assert load_small(fold=5, train_size=16).train.images.shape == (8, 16, 16, 3)


def test_training_captions_are_told_apart(load_small, small_source):
    digests = {load_small(fold=fold).training_captions for fold in range(3)}
    assert len(digests) > 1
    before = load_small().training_captions
    assert load_small(num_concepts=2).training_captions == before
    path = small_source / "train_caps.txt"
    path.write_text(path.read_text().replace("big", "huge"))
    assert load_small().training_captions != before


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("prepared.json", lambda path: path.write_text("{")),
        ("texts.json", lambda path: path.unlink()),
        ("train/tokens.npy", lambda path: path.unlink()),
        ("test/rows.npy", lambda path: path.write_bytes(path.read_bytes()[:20])),
        ("rsicd-train.array_record-00000-of-00001", lambda path: path.unlink()),
    ],
)
def test_damaged_prepared_files_are_told_in_one_sentence(load_small, tmp_path, name, damage):
    load_small()
    (path,) = (p for p in tmp_path.rglob(Path(name).name) if str(p).endswith(name))
    damage(path)
    with pytest.raises(DataError, match=r"^The prepared files in .* delete that folder.*\.$"):
        # What belongs to these settings is opened again; the rest is read for others.
        load_small(**({} if "examples" in path.parts else {"num_concepts": 2, "image_size": 12}))
    # The folder that the sentence names is made anew.
    shutil.rmtree(tmp_path / "prepared")
    assert load_small().test.images.shape[0] == NUM_TEST
