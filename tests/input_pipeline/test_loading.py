"""Splits as arrays: pixels, tokens, labels of the right image, made once and then opened."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from input_pipeline import assembly, decoding
from input_pipeline.concepts import count_words
from input_pipeline.errors import DataError
from input_pipeline.loading import load_datasets
from input_pipeline.settings import DataSettings
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
        return load_datasets("rsicd", source, tmp_path / "prepared", DataSettings(**settings))

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
        chosen = DataSettings(train_size=8, image_size=8, min_count=1, **settings)
        return load_datasets("rsicd", tmp_path / "forty", tmp_path / "prepared", chosen)

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


def test_each_seed_and_size_has_its_own_arrays(load):
    first, other = load(seed=0), load(seed=1)
    assert first.train.image_ids.tolist() != other.train.image_ids.tolist()
    assert load(seed=0).train.image_ids.tolist() == first.train.image_ids.tolist()
    assert load(image_size=20).test.images.shape == (3, 20, 20, 3)


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


def test_nothing_is_made_twice(load, monkeypatch):
    first = load()
    monkeypatch.setattr(decoding, "resize", None)
    monkeypatch.setattr(assembly, "learn", None)
    again = load()
    assert list(again.train.captions) == list(first.train.captions)
    np.testing.assert_array_equal(np.asarray(again.train.images), np.asarray(first.train.images))
    with pytest.raises(TypeError):  # other settings are learnt anew
        load(min_count=2)


def test_everything_is_memory_mapped_and_read_only(load):
    examples = load().train
    for field in dataclasses.fields(examples):
        array = getattr(examples, field.name)
        if isinstance(array, np.ndarray):
            assert isinstance(array, np.memmap), field.name
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0


def test_changed_code_makes_the_arrays_anew(load, monkeypatch):
    load()
    calls = []
    learn = assembly.learn
    monkeypatch.setattr(assembly, "learn", lambda *args: calls.append(args) or learn(*args))
    load()
    assert not calls
    monkeypatch.setattr("input_pipeline.loading._code_version", lambda: "another")
    load()
    assert len(calls) == 1


def test_folds_are_other_images_and_share_the_decoded_ones(load, monkeypatch):
    folds = [load(fold=fold, train_size=16) for fold in range(4)]
    validated = [tuple(fold.validation.image_ids.tolist()) for fold in folds]
    assert len(set(validated)) > 1
    for data in folds:
        assert sorted([*data.train.image_ids, *data.validation.image_ids]) == list(range(NUM_TRAIN))
    monkeypatch.setattr(decoding, "resize", None)
    assert load(fold=5, train_size=16).train.images.shape == (8, 16, 16, 3)


def test_training_captions_are_told_apart(load, source):
    digests = {load(fold=fold).training_captions for fold in range(3)}
    assert len(digests) > 1
    before = load().training_captions
    assert load(num_concepts=2).training_captions == before
    path = source / "train_caps.txt"
    path.write_text(path.read_text().replace("big", "huge"))
    assert load().training_captions != before


SPLIT = {"train": 12, "validation": 4, "test": 4, "size": 32}


def load_synthetic(folder, **changes):
    settings = DataSettings(**{"train_size": 32, "image_size": 28, "min_count": 1} | changes)
    return load_datasets("synthetic", None, folder, settings, options=SPLIT)


@pytest.mark.parametrize("validation", ["auto", "published"])
def test_a_published_validation_split_is_taken(tmp_path, validation):
    data = load_synthetic(tmp_path, validation=validation)
    parts = (data.train, data.validation, data.test)
    assert [part.image_ids.tolist() for part in parts] == [
        list(range(12)),
        [12, 13, 14, 15],
        [16, 17, 18, 19],
    ]
    assert data.train.images.shape == (12, 32, 32, 3)
    assert len(data.concepts) > 0
    assert (data.train.lengths > 0).all()
    # Nothing is shuffled, so a label's position is its image's.
    by_position = load_synthetic(tmp_path, labels_by="position")
    np.testing.assert_array_equal(by_position.train.image_concepts, data.train.image_concepts)


def test_a_random_split_is_drawn_from_training_and_validation_images(tmp_path):
    data = load_synthetic(tmp_path, validation="random", validation_fraction=0.5, seed=1)
    assert sorted([*data.train.image_ids, *data.validation.image_ids]) == list(range(16))
    assert set(data.train.image_ids) & {12, 13, 14, 15}
    assert data.test.image_ids.tolist() == [16, 17, 18, 19]
    for examples in (data.train, data.validation):
        assert [name.split("_")[-1] for name in examples.file_names] == [
            f"{image_id:06d}.png" for image_id in examples.image_ids
        ]


def test_a_validation_split_that_is_not_there_is_missed(load):
    with pytest.raises(DataError, match="no validation split"):
        load(validation="published")


def test_stop_words_of_ones_own_and_lemmas(load):
    plain = load()
    assert (
        "near" in load(stop_words=()).concepts.words or "the" in load(stop_words=()).concepts.words
    )
    without = load(stop_words=("silo",))
    assert "silo" in plain.concepts.words
    assert "silo" not in without.concepts.words
    assert without.vocabulary == plain.vocabulary
    pytest.importorskip("simplemma")
    lemmas = load(lemmatize=True, stop_words=())
    assert "be" in lemmas.concepts.words or "the" in lemmas.concepts.words


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("prepared.json", lambda path: path.write_text("{")),
        ("texts.json", lambda path: path.write_text(path.read_text()[:50])),
        ("texts.json", lambda path: path.unlink()),
        ("train/tokens.npy", lambda path: path.unlink()),
        ("test/rows.npy", lambda path: path.write_bytes(path.read_bytes()[:20])),
        ("concepts.json", lambda path: path.write_text("[]")),
        ("rsicd-train.array_record-00000-of-00001", lambda path: path.unlink()),
    ],
)
def test_damaged_prepared_files_are_told_in_one_sentence(load, tmp_path, name, damage):
    load()
    (path,) = (p for p in tmp_path.rglob(Path(name).name) if str(p).endswith(name))
    damage(path)
    with pytest.raises(DataError, match=r"^The prepared files in .* delete that folder.*\.$"):
        # What belongs to these settings is opened again; the rest is read for others.
        load(**({} if "examples" in path.parts else {"num_concepts": 2, "image_size": 12}))
    # The folder that the sentence names is made anew.
    shutil.rmtree(tmp_path / "prepared")
    assert load().test.images.shape[0] == NUM_TEST
