"""The tokens, the stop words and the vocabulary, against the rules and the release's files."""

import json

import numpy as np
import pytest

from input_pipeline.errors import DataError
from input_pipeline.language.tokens import tokenize
from input_pipeline.language.vocabulary import UNKNOWN, Vocabulary, stop_words, word_form

CAPTIONS = [
    "Two silos stand beside a barn .",
    "a barn with silos and a pond.",
    "The barn is near a pond; silos are red.",
]


def build(captions=CAPTIONS, **options):
    return Vocabulary.from_tokens(map(tokenize, captions), **options)


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("Some boats, a pier.", "some boats a pier"),
        ("a pier near a bridge. some boats wait .", "a pier near a bridge some boats wait"),
        ("is it a pier? yes! it is", "is it a pier yes it is"),
        ("a pier near a bridge.some boats", "a pier near a bridge.some boats"),
        ("the runway is 3.5 km long. it bends", "the runway is 3.5 km long it bends"),
        ("the church of st. mary and two barns.", "the church of st. mary and two barns"),
        ("barns, silos etc. lie on a hill.", "barns silos etc lie on a hill"),
        ("at 9 p.m. the u.s. base is dark.", "at 9 p.m. the u.s. base is dark"),
        ("(two) [big] barns: one & only; 10% * #1 @ $5", "two big barns one only 10 1 5"),
        ("the pilot's runway isn't long", "the pilot 's runway is n't long"),
        ("a t-shaped pier and x-ray", "a t-shaped pier and x-ray"),
        ("a white '27' on the runway", "a white '27 ' on the runway"),
        ("one roof – another roof", "one roof – another roof"),  # noqa: RUF001
        ("  ", ""),
        (". . .", ""),
    ],
)
def test_tokenize(caption, tokens):
    assert tokenize(caption) == tokens.split()


def test_vocabulary_in_first_seen_order_without_stop_words():
    assert len(stop_words()) == 179
    vocabulary = build(min_count=2)
    assert vocabulary.words == ["silos", "barn", "pond", UNKNOWN]
    assert len(vocabulary) == vocabulary.unknown_id == 4
    assert "barn" in vocabulary
    assert "the" not in vocabulary
    assert json.loads(vocabulary.to_json()) == {"words": vocabulary.words}
    ids = vocabulary.encode(tokenize("The barn, a pond ."))
    assert (ids.dtype, ids.tolist()) == (np.int32, [4, 2, 4, 3])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["a", "a", UNKNOWN], "'a' twice"), (["a"], "last word must be '<unk>'"), ([], "last word")],
)
def test_other_words_are_refused(words, sentence):
    with pytest.raises(DataError, match=sentence):
        Vocabulary(words)


def test_english_lemmas():
    pytest.importorskip("simplemma")
    words = ["planes", "plane", "buildings", "trees", "houses", "grass", "", "residential"]
    forms = ["plane", "plane", "building", "tree", "house", "grass", "", "residential"]
    assert list(map(word_form(lemmatize=True), words)) == forms
    assert list(map(word_form(lemmatize=False), words)) == words


def test_released_rsicd_vocabulary_word_for_word(released_rsicd):
    captions = [
        line
        for name in ("train_caps.txt", "test_caps.txt")
        for line in (released_rsicd / name).read_text("utf-8").splitlines()
    ]
    released = json.loads((released_rsicd / "vocab.json").read_text())["word2idx"]
    vocabulary = build(captions)
    assert vocabulary.words == sorted(released, key=released.__getitem__)
    assert len(vocabulary) == 1225
