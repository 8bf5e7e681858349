"""The tokens, the stop words and the vocabulary, against the rules and the release's files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from input_pipeline.errors import DataError
from input_pipeline.language.vocabulary import UNKNOWN, Vocabulary, stop_words, tokenize

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = Path(os.environ.get("KAMCL_REFERENCE_DATA", ROOT.parent / "shared" / "reference_data"))

CAPTIONS = [
    "Two silos stand beside a barn .",
    "a barn with silos and a pond.",
    "The barn is near a pond; silos are red.",
]


@pytest.fixture(scope="module")
def rsicd():
    folder = REFERENCE / "rsicd"
    if not folder.is_dir():
        pytest.skip(f"the comparison with the released RSICD vocabulary needs {folder}")
    return folder


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


def test_there_are_179_stop_words():
    assert len(stop_words()) == 179
    assert {"the", "is", "wouldn't"} <= stop_words()


def test_vocabulary_in_first_seen_order():
    vocabulary = Vocabulary.build(CAPTIONS, min_count=2)
    assert vocabulary.words == ["silos", "barn", "pond", UNKNOWN]
    assert len(vocabulary) == vocabulary.unknown_id == 4
    assert "barn" in vocabulary
    assert "the" not in vocabulary


def test_encode_keeps_stop_words_as_unknown():
    vocabulary = Vocabulary.build(CAPTIONS, min_count=2)
    ids = vocabulary.encode("The barn, a pond .")
    assert ids.dtype == np.int32
    assert ids.tolist() == [4, 2, 4, 3]


@pytest.mark.parametrize("caption", ["", " . , "])
def test_a_caption_without_words_is_refused(caption):
    with pytest.raises(DataError, match="has no word"):
        Vocabulary.build(CAPTIONS, min_count=2).encode(caption)


def test_json_round_trip():
    vocabulary = Vocabulary.build(CAPTIONS, min_count=1)
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


@pytest.mark.parametrize("text", ["{", "[]", '{"words": 3}', '{"words": ["a"]}', "null"])
def test_other_json_is_refused(text):
    with pytest.raises(DataError, match="vocabulary"):
        Vocabulary.from_json(text)


def test_a_word_listed_twice_is_refused():
    with pytest.raises(DataError, match="'a' twice"):
        Vocabulary(["a", "a", UNKNOWN])


def test_released_rsicd_vocabulary_word_for_word(rsicd):
    captions = [
        line
        for name in ("train_caps.txt", "test_caps.txt")
        for line in (rsicd / name).read_text("utf-8").splitlines()
    ]
    released = json.loads((rsicd / "vocab.json").read_text())["word2idx"]
    vocabulary = Vocabulary.build(captions)
    assert vocabulary.words == sorted(released, key=released.__getitem__)
    assert len(vocabulary) == 1225
