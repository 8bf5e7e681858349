import numpy as np

from input_pipeline.language.concepts import Concepts
from input_pipeline.language.texts import Texts
from input_pipeline.language.vocabulary import UNKNOWN, Vocabulary
from input_pipeline.language.word_tokenizer import WordTokenizer
from input_pipeline.splits.assembly import caption_arrays

CAPTIONS = ["A pier, two boats and a boat .", "two boats", " .", ""]
VOCABULARY = Vocabulary(["pier", "boats", "boat", UNKNOWN])


def test_tokens_are_those_that_models_are_trained_on():
    texts = Texts([0], [""], [CAPTIONS])
    for most, longest in [(0, 7), (3, 3)]:
        arrays = caption_arrays(texts, VOCABULARY, Concepts([]), most, longest, width=0)
        tokens, lengths = WordTokenizer(VOCABULARY, most).encode(CAPTIONS)
        assert (tokens.dtype, lengths.dtype) == (np.int32, np.int32)
        np.testing.assert_array_equal(tokens, arrays["tokens"])
        np.testing.assert_array_equal(lengths, arrays["lengths"])
    assert WordTokenizer(VOCABULARY).encode([])[0].shape == (0, 0)


def test_a_caption_is_cut_behind_the_most_words():
    assert list(map(WordTokenizer(VOCABULARY, 3).is_cut, CAPTIONS)) == [True, False, False, False]
    assert not any(map(WordTokenizer(VOCABULARY).is_cut, CAPTIONS))


def test_other_words_or_lengths_are_another_tokenizer():
    made = [(VOCABULARY, 0), (VOCABULARY, 3), (Vocabulary(["pier", UNKNOWN]), 0)]
    assert len({WordTokenizer(*each).identity for each in made}) == 3
