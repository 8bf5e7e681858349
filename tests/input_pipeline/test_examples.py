"""Splits as arrays: pixels, tokens, labels by image id, and no half-made file."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from input_pipeline import decoding
from input_pipeline.concepts import count_words
from input_pipeline.decoding import Output, decode
from input_pipeline.errors import DataError
from input_pipeline.examples import load_datasets, split_rows
from input_pipeline.vocabulary import tokenize

NUM_TRAIN, NUM_TEST = 10, 3
WORDS = "silo pond barn pier road field roof hill".split()  # noqa: SIM905


def caption(image, number):
    """Two words that the image repeats, one that changes: labels differ between images."""
    first, second = WORDS[image % 8], WORDS[image * 3 % 8]
    return f"the {first} and the {second} near a {WORDS[(image + number) % 8]}. it is big ."


def pixels(image):
    return np.random.default_rng(image).integers(0, 256, (30, 40, 3), np.uint8)


def write_source(folder, num_train, caption_of):
    (folder / "images").mkdir(parents=True)
    for split, first, count in (("train", 0, num_train), ("test", num_train, NUM_TEST)):
        images = range(first, first + count)
        for image in images:
            Image.fromarray(pixels(image)).save(folder / "images" / f"{image}.png")
        captions = [caption_of(image, number) for image in images for number in range(5)]
        (folder / f"{split}_caps.txt").write_text("\n".join(captions) + "\n")
        names = "".join(f"{image}.png\n" for image in images)
        (folder / f"{split}_filename.txt").write_text(names)


@pytest.fixture
def source(tmp_path):
    write_source(tmp_path / "source", NUM_TRAIN, caption)
    return tmp_path / "source"


@pytest.fixture
def load(source, tmp_path):
    def load(**changes):
        settings = {"train_size": 24, "image_size": 16, "min_count": 1} | changes
        return load_datasets("rsicd", source, tmp_path / "prepared", **settings)

    return load


def test_shapes_types_and_pixels(load):
    data = load()
    for examples, count, size in (
        (data.train, 8, 24),
        (data.validation, 2, 16),
        (data.test, 3, 16),
    ):
        captions, concepts = 5 * count, len(data.concepts)
        assert examples.images.shape == (count, size, size, 3)
        assert examples.images.dtype == np.uint8
        assert isinstance(examples.images, np.memmap)
        assert not examples.images.flags.writeable
        assert examples.image_ids.shape == (count,)
        assert examples.image_ids.dtype == np.int64
        assert len(examples.file_names) == count
        assert len(examples.captions) == captions
        assert examples.image_of_caption.tolist() == np.repeat(range(count), 5).tolist()
        assert examples.tokens.shape == (captions, data.train.tokens.shape[1])
        for array in (examples.image_of_caption, examples.tokens, examples.lengths):
            assert array.dtype == np.int32
        assert examples.word_concepts.shape == (captions, concepts)
        assert examples.image_concepts.shape == (count, concepts)
        assert examples.image_concepts.dtype == np.float32
        for row, image_id in enumerate(examples.image_ids):
            assert examples.file_names[row] == f"{image_id}.png"
            expected = Image.fromarray(pixels(image_id)).resize((size, size), 2)
            np.testing.assert_array_equal(examples.images[row], np.asarray(expected))
            assert examples.captions[5 * row + 4] == caption(image_id, 4)


def test_ids_of_the_splits_are_disjoint_and_complete(load):
    data = load()
    ids = [*data.train.image_ids, *data.validation.image_ids, *data.test.image_ids]
    assert sorted(ids) == list(range(NUM_TRAIN + NUM_TEST))
    assert data.test.image_ids.tolist() == [10, 11, 12]


@pytest.mark.parametrize("vocabulary_from", ["train", "train_and_test"])
def test_each_training_image_has_the_labels_of_its_own_captions(load, vocabulary_from):
    data = load(vocabulary_from=vocabulary_from, seed=3)
    seen = set()
    for image_id, labels in zip(data.train.image_ids, data.train.image_concepts, strict=True):
        counts = count_words([caption(image_id, number) for number in range(5)])
        expected = [counts.get(word, 0) / max(counts.values()) for word in data.concepts.words]
        np.testing.assert_array_equal(labels, np.float32(expected))
        assert labels.any()
        seen.add(labels.tobytes())
    assert len(seen) > 4
    assert not data.validation.image_concepts.any()
    assert not data.test.image_concepts.any()


def caption_of_its_own(image, number):
    """Repeats a word that no other image has, so that labels tell whose they are."""
    return f"{caption(image, number)} {WORDS[number]} word{image} ."


@pytest.fixture
def load_forty(tmp_path):
    write_source(tmp_path / "forty", 40, caption_of_its_own)

    def load(**settings):
        sizes = {"train_size": 8, "image_size": 8, "min_count": 1}
        folders = (tmp_path / "forty", tmp_path / "prepared")
        return load_datasets("rsicd", *folders, **sizes, **settings)

    return load


@pytest.mark.parametrize("vocabulary_from", ["train", "train_and_test"])
def test_labels_by_position_are_mostly_those_of_other_images(load_forty, vocabulary_from):
    own = load_forty(vocabulary_from=vocabulary_from, seed=5)
    data = load_forty(vocabulary_from=vocabulary_from, seed=5, labels_by="position")
    # As the release does it: shuffle the file, keep 80 %, give position p the labels of row p.
    shuffled = np.random.default_rng(5).permutation(40)[: int(40 * 0.8)]
    giver = {image: position for position, image in enumerate(shuffled.tolist())}
    assert sorted(giver) == data.train.image_ids.tolist() == own.train.image_ids.tolist()
    for image, labels in zip(data.train.image_ids, data.train.image_concepts, strict=True):
        counts = count_words([caption_of_its_own(giver[image], number) for number in range(5)])
        expected = [counts.get(word, 0) / max(counts.values()) for word in data.concepts.words]
        np.testing.assert_array_equal(labels, np.float32(expected))
    kept = (data.train.image_concepts == own.train.image_concepts).all(axis=1)
    assert kept.sum() == sum(image == position for image, position in giver.items()) < 4
    assert not data.validation.image_concepts.any()
    assert not data.test.image_concepts.any()
    # Nothing but the labels differs.
    assert data.concepts.words == own.concepts.words
    np.testing.assert_array_equal(data.train.tokens, own.train.tokens)
    np.testing.assert_array_equal(data.train.word_concepts, own.train.word_concepts)


def test_labels_by_image_is_the_default(load_forty):
    default, by_image = load_forty(), load_forty(labels_by="image")
    np.testing.assert_array_equal(default.train.image_concepts, by_image.train.image_concepts)
    columns = [default.concepts.words.index(f"word{image}") for image in default.train.image_ids]
    assert default.train.image_concepts[np.arange(32), columns].all()


def test_tokens_and_word_concepts_belong_to_their_caption(load):
    data = load()
    for examples in (data.train, data.validation, data.test):
        for row, text in enumerate(examples.captions):
            length = examples.lengths[row]
            np.testing.assert_array_equal(
                examples.tokens[row, :length], data.vocabulary.encode(text)
            )
            assert not examples.tokens[row, length:].any()
            marked = {data.concepts.words[i] for i in np.flatnonzero(examples.word_concepts[row])}
            assert marked == set(tokenize(text)) & set(data.concepts.words)


def test_padded_concepts_are_added_columns_of_zeros(load):
    data, padded = load(num_concepts=40), load(num_concepts=40, pad_concepts=True)
    count = len(data.concepts)
    assert 0 < count == data.num_concepts < padded.num_concepts == 40
    assert padded.concepts.words == data.concepts.words
    for name in ("train", "validation", "test"):
        plain, wide = getattr(data, name), getattr(padded, name)
        for field in dataclasses.fields(plain):
            expected, array = getattr(plain, field.name), getattr(wide, field.name)
            if field.name in ("word_concepts", "image_concepts"):
                assert array.shape == (len(expected), 40)
                assert array.dtype == expected.dtype
                assert not array[:, count:].any()
                array = array[:, :count]
            np.testing.assert_array_equal(array, expected)
    assert padded.train.word_concepts.any()
    assert padded.train.image_concepts.any()


def test_nothing_is_padded_where_there_are_concepts_enough(load):
    data, padded = load(num_concepts=3), load(num_concepts=3, pad_concepts=True)
    assert data.num_concepts == padded.num_concepts == len(padded.concepts) == 3
    np.testing.assert_array_equal(padded.train.image_concepts, data.train.image_concepts)


def test_long_captions_are_cut_when_asked(load):
    data = load(max_tokens=4)
    assert data.train.tokens.shape[1] == data.train.lengths.max() == 4
    assert load(max_tokens=500).train.tokens.shape[1] == load().train.tokens.shape[1] == 11


def test_training_words_come_from_training_captions_alone(load, source):
    path = source / "test_caps.txt"
    path.write_text(path.read_text().replace("big", "huge"))
    assert "huge" not in load().vocabulary
    assert "huge" in load(vocabulary_from="train_and_test").vocabulary


def test_captions_of_punctuation_are_one_unknown_word_each(load, source):
    for split in ("train", "test"):
        path = source / f"{split}_caps.txt"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*[" ."] * 5, *lines[5:]]) + "\n")
    # Five of them in the training file: `<unk>` is not counted like a word.
    data = load(vocabulary_from="train_and_test", min_count=5)
    assert (data.test.lengths[:5] == 1).all()
    assert (data.test.tokens[:5, 0] == data.vocabulary.unknown_id).all()
    assert not data.test.tokens[:5, 1:].any()
    assert not data.test.word_concepts[:5].any()


def test_images_are_decoded_once(load, monkeypatch):
    load()
    monkeypatch.setattr(decoding, "resize", None)
    load()


def test_an_unreadable_image_is_named_and_leaves_no_array(load, source, tmp_path):
    (source / "images" / "11.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"'11.png' can't be read as an image\.$"):
        load()
    # Train and validation were whole by then; nothing of test is left, under any name.
    arrays = sorted(path.name for path in tmp_path.rglob("*px.npy*"))
    assert len(arrays) == 2
    assert not any("test" in name or "part" in name for name in arrays)
    Image.fromarray(pixels(11)).save(source / "images" / "11.png")
    assert load().test.images.shape[0] == NUM_TEST


def test_a_cut_off_image_is_named(load, source):
    path = source / "images" / "2.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"'2\.png'"):
        load()


def test_an_interrupted_decoding_starts_over(load, monkeypatch, tmp_path):
    whole = decoding.resize
    calls = []

    def fails_midway(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(decoding, "resize", fails_midway)
    with pytest.raises(KeyboardInterrupt):
        load()
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*px.npy*"))
    data = load()
    assert all(image.any() for image in data.train.images)


def test_a_file_that_is_no_array_is_made_again(load, tmp_path):
    load()
    for path in tmp_path.rglob("*px.npy"):
        path.write_bytes(path.read_bytes()[:200])
    assert all(image.any() for image in load().test.images)


def test_each_seed_and_size_has_its_own_arrays(load):
    first, other = load(seed=0), load(seed=1)
    assert first.train.image_ids.tolist() != other.train.image_ids.tolist()
    assert load(seed=0).train.image_ids.tolist() == first.train.image_ids.tolist()
    assert load(image_size=20).test.images.shape == (3, 20, 20, 3)


def test_split_is_a_pure_function():
    train, validation = split_rows(9828, 0.2, seed=0)
    assert (len(train), len(validation)) == (7862, 1966)  # the release's sizes for RSICD
    assert not set(train) & set(validation)
    assert sorted([*train, *validation]) == list(range(9828))
    for rows, again in zip((train, validation), split_rows(9828, 0.2, seed=0), strict=True):
        np.testing.assert_array_equal(rows, again)
    assert split_rows(9828, 0.2, seed=1)[0].tolist() != train.tolist()
    assert len(split_rows(10, 0.3, seed=0)[0]) == 7


@pytest.mark.parametrize(("count", "fraction"), [(10, 0.0), (10, 1.0), (1, 0.2), (10, -0.5)])
def test_a_split_without_images_is_refused(count, fraction):
    with pytest.raises(DataError, match="validation_fraction"):
        split_rows(count, fraction)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"vocabulary_from": "all"}, "vocabulary_from"),
        ({"labels_by": "row"}, "labels_by"),
        ({"train_size": 0}, "train_size"),
    ],
)
def test_values_that_make_no_sense_are_refused(load, change, word):
    with pytest.raises(DataError, match=word):
        load(**change)


def test_one_pass_fills_several_outputs(tmp_path, monkeypatch):
    reads = []

    class Source(list):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    path = tmp_path / "1.png"
    Image.fromarray(pixels(1)).save(path)
    source = Source([{"image": path.read_bytes(), "filename": b"1.png"}] * 3)
    outputs = [
        Output(tmp_path / "a.npy", np.array([0, 2]), 8),
        Output(tmp_path / "b.npy", np.array([1, 2]), 4),
    ]
    arrays = decode(source, outputs)
    assert [array.shape for array in arrays] == [(2, 8, 8, 3), (2, 4, 4, 3)]
    assert reads == [0, 1, 2]


def test_the_synthetic_data_set_has_its_own_validation_split(tmp_path):
    settings = {
        "options": {"train": 12, "validation": 4, "test": 4, "size": 32},
        "train_size": 32,
        "image_size": 28,
        "min_count": 1,
    }
    data = load_datasets("synthetic", None, tmp_path, **settings)
    assert [len(part.image_ids) for part in (data.train, data.validation, data.test)] == [12, 4, 4]
    assert data.train.images.shape == (12, 32, 32, 3)
    assert len(data.concepts) > 0
    assert (data.train.lengths > 0).all()
    # Nothing is shuffled, so a label's position is its image's.
    by_position = load_datasets("synthetic", None, tmp_path, **settings, labels_by="position")
    np.testing.assert_array_equal(by_position.train.image_concepts, data.train.image_concepts)
