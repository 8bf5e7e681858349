"""An experiment's data: the right pixels, made once and then opened, damage told."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from clip_vocabulary import write_vocab_json
from PIL import Image
from small_release import NUM_TEST, NUM_TRAIN, caption, pixels

from input_pipeline.errors import DataError
from input_pipeline.images import decoded
from input_pipeline.images.fitting import Fitting, fit
from input_pipeline.language.clip_tokenizer import ClipTokenizer, open_byte_pairs
from input_pipeline.splits import assembly, loading


def test_shapes_types_and_pixels(load_small):
    data = load_small()
    sizes = ((data.train, 8, 24), (data.validation, 2, 16), (data.test, 3, 16))
    for examples, count, size in sizes:
        assert examples.image_of_caption.tolist() == np.repeat(range(count), 5).tolist()
        for name, shape, dtype in [
            ("images", (count, size, size, 3), np.uint8),
            ("image_ids", (count,), np.int64),
            ("image_of_caption", (5 * count,), np.int32),
            ("tokens", (5 * count, 11), np.int32),
            ("lengths", (5 * count,), np.int32),
            ("word_concepts", (5 * count, len(data.concepts)), np.uint8),
            ("image_concepts", (count, len(data.concepts)), np.float32),
        ]:
            array = getattr(examples, name)
            assert (array.shape, array.dtype) == (shape, dtype), name
            if name != "images":
                assert isinstance(array, np.memmap)
                assert not array.flags.writeable
        for row, image_id in enumerate(examples.image_ids):
            assert examples.file_names[row] == f"{image_id}.png"
            expected = Image.fromarray(pixels(image_id)).resize((size, size), 2)
            np.testing.assert_array_equal(examples.images[row], np.asarray(expected))
            assert examples.captions[5 * row + 4] == caption(image_id, 4)


def test_every_tokenizer_has_arrays_of_its_own(load_small, tmp_path):
    write_vocab_json(tmp_path)
    pairs = open_byte_pairs(tmp_path / "vocab.json")
    of_words, splits = load_small(), ("train", "validation", "test")
    for tokenizer in (ClipTokenizer(pairs, 40), ClipTokenizer(pairs, 30)):
        data = load_small(tokenizer=tokenizer)
        assert data.tokenizer is tokenizer
        assert data.vocabulary == of_words.vocabulary
        captions = [caption for split in splits for caption in getattr(data, split).captions]
        tokens, lengths = tokenizer.encode(captions)
        found = [getattr(data, split) for split in splits]
        np.testing.assert_array_equal(np.concatenate([split.tokens for split in found]), tokens)
        np.testing.assert_array_equal(np.concatenate([split.lengths for split in found]), lengths)
        np.testing.assert_array_equal(data.train.word_concepts, of_words.train.word_concepts)
    np.testing.assert_array_equal(load_small().train.tokens, of_words.train.tokens)


def test_images_that_are_fitted_otherwise_lie_beside_the_others(load_small):
    squashed, cut_out = load_small(), load_small(fitting=Fitting("shortest", "bicubic"))
    for name, side in (("train", 24), ("test", 16)):
        image_id = getattr(cut_out, name).image_ids[0]
        expected = fit(Image.fromarray(pixels(image_id)), side, Fitting("shortest", "bicubic"))
        np.testing.assert_array_equal(getattr(cut_out, name).images[0], expected)
        assert (getattr(squashed, name).images[0] != expected).any()
        np.testing.assert_array_equal(
            getattr(load_small(), name).images[0], getattr(squashed, name).images[0]
        )


def test_nothing_is_made_twice(load_small, monkeypatch):
    load_small()
    monkeypatch.setattr(decoded, "resize", None)
    monkeypatch.setattr(assembly, "learn", None)
    assert load_small().train.captions[4] == caption(load_small().train.image_ids[0], 4)
    for changes in ({"min_count": 2}, {"seed": 1}, {"image_size": 20}):
        with pytest.raises(TypeError):  # what depends on the settings is made anew
            load_small(**changes)
    monkeypatch.setattr(loading, "_code_version", lambda: "another")
    with pytest.raises(TypeError):  # and so it is with other code
        load_small()


def test_images_that_are_left_out_are_told(load_small, small_source):
    assert load_small().left_out == {}
    (small_source / "images" / "3.png").unlink()
    data = load_small(bad_images="skip")
    assert data.left_out == {"3.png": "missing"}
    assert 3 not in {*data.train.image_ids, *data.validation.image_ids, *data.test.image_ids}


def test_folds_are_other_images_and_share_the_decoded_ones(load_small, small_source, monkeypatch):
    first = load_small(train_size=16)
    monkeypatch.setattr(decoded, "resize", None)
    other = load_small(train_size=16, fold=1)
    assert sorted([*other.train.image_ids, *other.validation.image_ids]) == list(range(NUM_TRAIN))
    assert other.validation.image_ids.tolist() != first.validation.image_ids.tolist()
    # Training captions are told apart by their images and their words, and by nothing else.
    fewer = load_small(train_size=16, num_concepts=2)
    assert fewer.training_captions == first.training_captions != other.training_captions
    path = small_source / "train_caps.txt"
    path.write_text(path.read_text().replace("big", "huge"))
    monkeypatch.undo()
    assert load_small().training_captions != first.training_captions


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prepared.json", b"{"),
        ("texts.json", None),
        ("dataset_info.json", b'{"name": '),
        ("train/tokens.npy", None),
        ("test/rows.npy", b"\x93NUMPY"),
        ("rsicd-train.array_record-00000-of-00001", None),
    ],
)
def test_damaged_prepared_files_are_told_in_one_sentence(load_small, tmp_path, name, content):
    load_small()
    (path,) = (p for p in tmp_path.rglob(Path(name).name) if str(p).endswith(name))
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=r"^The prepared files in .* delete that folder.*\.$"):
        # What belongs to these settings is opened again; the rest is read for others.
        load_small(**({} if "examples" in path.parts else {"num_concepts": 2, "image_size": 12}))
    # The folder that the sentence names is made anew.
    shutil.rmtree(tmp_path / "prepared")
    assert load_small().test.images.shape[0] == NUM_TEST
