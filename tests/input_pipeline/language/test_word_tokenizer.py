import numpy as np

from input_pipeline.language.vocabulary import UNKNOWN, Vocabulary
from input_pipeline.language.word_tokenizer import WordTokenizer

CAPTIONS = ["A pier, two boats and a boat .", "two boats", " .", ""]
VOCABULARY = Vocabulary(["pier", "boats", "boat", UNKNOWN])


def test_a_caption_is_its_words_those_in_front_and_padding():
    pier, boats, boat, unknown = (VOCABULARY.encode([word])[0] for word in VOCABULARY.words)
    words = [unknown, pier, unknown, boats, unknown, unknown, boat]
    rows = [words, [unknown, boats], [unknown], [unknown]]
    for most, multiple, width in [(0, 1, 7), (3, 1, 3), (3, 16, 16), (0, 4, 8)]:
        tokens, lengths = WordTokenizer(VOCABULARY, most).encode(CAPTIONS, multiple)
        assert (tokens.dtype, lengths.dtype) == (np.int32, np.int32)
        read = [row[: most or None] for row in rows]
        assert tokens.tolist() == [row + [0] * (width - len(row)) for row in read]
        assert lengths.tolist() == list(map(len, read))
    assert WordTokenizer(VOCABULARY).encode([])[0].shape == (0, 0)


def test_a_caption_is_cut_behind_the_most_words():
    assert list(map(WordTokenizer(VOCABULARY, 3).is_cut, CAPTIONS)) == [True, False, False, False]
    assert not any(map(WordTokenizer(VOCABULARY).is_cut, CAPTIONS))


def test_other_words_or_lengths_are_another_tokenizer():
    made = [(VOCABULARY, 0), (VOCABULARY, 3), (Vocabulary(["pier", UNKNOWN]), 0)]
    assert len({WordTokenizer(*each).identity for each in made}) == 3
