"""Splits, tokens, labels of the right image: what the captions of a data set become."""

from functools import partial

import numpy as np
import pytest
from small_release import WORDS, caption, load_from, write_source

from input_pipeline.datasets import open_prepared
from input_pipeline.errors import DataError
from input_pipeline.language.concepts import count_words
from input_pipeline.language.texts import Texts
from input_pipeline.language.tokens import tokenize
from input_pipeline.language.word_tokenizer import WordTokenizer
from input_pipeline.splits import assembly
from input_pipeline.splits.loading import load_prepared
from input_pipeline.splits.settings import DataSettings


def labels_of(captions, words):
    counts = count_words(captions)
    return np.float32([counts.get(word, 0) / max(counts.values()) for word in words])


def caption_of_its_own(image, number):
    """Repeats a word that no other image has, so that labels tell whose they are."""
    return f"{caption(image, number)} {WORDS[number]} word{image} ."


def check_labels(data, giver_of):
    for image, labels in zip(data.train.image_ids, data.train.image_concepts, strict=True):
        captions = [caption_of_its_own(giver_of[image], number) for number in range(5)]
        np.testing.assert_array_equal(labels, labels_of(captions, data.concepts.words))
    for held_out in (data.validation, data.test):  # to measure by: their own in any case
        for row, labels in enumerate(held_out.image_concepts):
            captions = held_out.captions[5 * row : 5 * row + 5]
            np.testing.assert_array_equal(labels, labels_of(captions, data.concepts.words))
        assert held_out.image_concepts.any()


def test_labels_are_the_image_s_own_or_by_position_mostly_those_of_others(tmp_path):
    write_source(tmp_path / "forty", 40, caption_of_its_own)
    load_forty = partial(load_from, tmp_path / "forty", train_size=8, image_size=8, seed=5)
    own, data = load_forty(), load_forty(labels_by="position")
    check_labels(own, range(40))
    # As the release does it: shuffle the file, keep 80 %, give position p the labels of row p.
    shuffled = np.random.default_rng(5).permutation(40)[: int(40 * 0.8)]
    giver = {image: position for position, image in enumerate(shuffled.tolist())}
    assert sorted(giver) == data.train.image_ids.tolist() == own.train.image_ids.tolist()
    check_labels(data, giver)
    assert sum(image == position for image, position in giver.items()) < 4
    # Nothing but the labels differs.
    assert data.concepts.words == own.concepts.words
    np.testing.assert_array_equal(data.train.tokens, own.train.tokens)
    np.testing.assert_array_equal(data.train.word_concepts, own.train.word_concepts)


def test_tokens_and_word_concepts_belong_to_their_caption(load_small):
    data = load_small()
    for examples in (data.train, data.validation, data.test):
        for row, words in enumerate(map(tokenize, examples.captions)):
            length = examples.lengths[row]
            ids = data.vocabulary.encode(words)
            np.testing.assert_array_equal(examples.tokens[row, :length], ids)
            assert not examples.tokens[row, length:].any()
            marked = {data.concepts.words[i] for i in np.flatnonzero(examples.word_concepts[row])}
            assert marked == set(words) & set(data.concepts.words)


def test_padded_concepts_are_added_columns_of_zeros(load_small):
    data, padded = load_small(num_concepts=40), load_small(num_concepts=40, pad_concepts=True)
    count = len(data.concepts)
    assert 0 < count == data.num_concepts < padded.num_concepts == 40
    assert padded.concepts.words == data.concepts.words
    for plain, wide in ((data.train, padded.train), (data.test, padded.test)):
        for name in ("word_concepts", "image_concepts"):
            array, expected = getattr(wide, name), getattr(plain, name)
            assert (array.shape, array.dtype) == ((len(expected), 40), expected.dtype)
            np.testing.assert_array_equal(array[:, :count], expected)
            assert not array[:, count:].any()
    assert load_small(min_repeats=99).num_concepts == 0
    np.testing.assert_array_equal(padded.validation.image_concepts[:, count:], 0)
    # Where there are enough concepts, nothing is padded.
    assert load_small(num_concepts=3, pad_concepts=True).num_concepts == 3


def test_labels_of_another_scale_are_prepared_anew(load_small):
    plain, present = load_small(), load_small(label_scale="present")
    for split in ("train", "validation", "test"):
        labels = getattr(plain, split).image_concepts
        np.testing.assert_array_equal(getattr(present, split).image_concepts, labels > 0)
        assert (labels[labels > 0] < 1).any()
    assert present.concepts.label_scale == "present"


def test_what_is_cut_off_is_not_read_however_wide_the_arrays_are(load_small):
    data = load_small()
    texts = Texts([0, 1], ["", ""], [list(data.test.captions[:2]), list(data.test.captions[2:4])])
    whole, _ = WordTokenizer(data.vocabulary).encode(texts.all_captions)
    for max_tokens in (1, 7):
        tokenizer = WordTokenizer(data.vocabulary, max_tokens)
        cut, wide = (tokenizer.encode(texts.all_captions, multiple) for multiple in (1, 16))
        np.testing.assert_array_equal(cut[0], whole[:, :max_tokens])
        np.testing.assert_array_equal(wide[0][:, :max_tokens], cut[0])
        assert not wide[0][:, max_tokens:].any()
        np.testing.assert_array_equal(wide[1], cut[1])
        concepts = assembly.word_concepts(texts, data.concepts, max_tokens, width=40)
        for row, words in enumerate(texts.tokens):
            named = set(data.concepts.columns_of(words[:max_tokens]))
            assert set(np.flatnonzero(concepts[row])) == named
    # The arrays of a data set are as wide as its longest caption, once cut.
    assert load_small(max_tokens=4).train.tokens.shape[1] == 4
    assert load_small(max_tokens=500).train.tokens.shape[1] == 11


def test_training_words_come_from_training_captions_alone(load_small, small_source):
    path = small_source / "test_caps.txt"
    path.write_text(path.read_text().replace("big", "huge"))
    assert "huge" not in load_small().vocabulary
    assert "huge" in load_small(vocabulary_from="train_and_test").vocabulary


def test_captions_of_punctuation_are_one_unknown_word_each(load_small, small_source):
    for split in ("train", "test"):
        path = small_source / f"{split}_caps.txt"
        path.write_text(" .\n" * 5 + "".join(path.read_text().splitlines(keepends=True)[5:]))
    # Five of them in the training file: `<unk>` is not counted like a word.
    data = load_small(vocabulary_from="train_and_test", min_count=5)
    unknown = [data.vocabulary.unknown_id] + [0] * (data.test.tokens.shape[1] - 1)
    assert data.test.tokens[:5].tolist() == [unknown] * 5
    assert (data.test.lengths[:5] == 1).all()
    assert not data.test.word_concepts[:5].any()


SPLIT = {"train": 12, "validation": 4, "test": 4, "size": 32}


def load_synthetic(folder, **changes):
    settings = DataSettings(**{"train_size": 32, "image_size": 28, "min_count": 1} | changes)
    return load_prepared(open_prepared("synthetic", None, folder, **SPLIT), settings)


def test_a_published_validation_split_is_taken(tmp_path):
    data = load_synthetic(tmp_path)
    ids = [part.image_ids.tolist() for part in (data.train, data.validation, data.test)]
    assert ids == [list(range(12)), [12, 13, 14, 15], [16, 17, 18, 19]]
    # Nothing is shuffled, so a label's position is its image's.
    by_position = load_synthetic(tmp_path, validation="published", labels_by="position")
    np.testing.assert_array_equal(by_position.train.image_concepts, data.train.image_concepts)


def test_a_random_split_is_drawn_from_training_and_validation_images(tmp_path, load_small):
    data = load_synthetic(tmp_path, validation="random", validation_fraction=0.5, seed=1)
    assert sorted([*data.train.image_ids, *data.validation.image_ids]) == list(range(16))
    assert set(data.train.image_ids) & {12, 13, 14, 15}
    assert data.test.image_ids.tolist() == [16, 17, 18, 19]
    for examples in (data.train, data.validation):
        numbers = [int(name[-10:-4]) for name in examples.file_names]
        assert numbers == examples.image_ids.tolist()
    with pytest.raises(DataError, match="no validation split"):
        load_small(validation="published")


def test_stop_words_of_ones_own_and_lemmas(load_small):
    plain, every = load_small(), load_small(stop_words=())
    assert {"near", "the"} & set(every.concepts.words)
    without = load_small(stop_words=("silo",))
    assert "silo" in plain.concepts.words
    assert "silo" not in without.concepts.words
    assert without.vocabulary == plain.vocabulary
    pytest.importorskip("simplemma")
    lemmas = load_small(lemmatize=True, stop_words=())
    assert {"be", "the"} & set(lemmas.concepts.words)
