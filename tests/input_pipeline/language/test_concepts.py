"""Concepts and soft labels, against hand-counted captions and the release's files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from input_pipeline.language import concepts
from input_pipeline.language.lemmatization import english_lemma, unchanged
from input_pipeline.language.vocabulary import UNKNOWN, Vocabulary

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = Path(os.environ.get("KAMCL_REFERENCE_DATA", ROOT.parent / "shared" / "reference_data"))

VOCABULARY = Vocabulary(["barn", "silo", "pond", UNKNOWN])
CAPTIONS = [
    ["The barn, the silo.", "the barn by the pond", "Barn and silo"],
    ["a pond; a pond!", "a rock", "a silo", "a silo"],
    ["nothing twice"],
]


@pytest.fixture(scope="module")
def rsicd():
    folder = REFERENCE / "rsicd"
    if not folder.is_dir():
        pytest.skip(f"the comparison with the released RSICD concepts needs {folder}")
    return folder


def find(captions=CAPTIONS, **changes):
    return concepts.find(captions, VOCABULARY.words, **changes)


def test_words_are_ranked_by_total_count():
    found = find()
    assert found.words == ["silo", "barn", "pond"]
    assert found.totals == [4, 3, 2]


def test_labels_are_counts_over_the_largest_count_stop_words_included():
    labels = find().image_labels(CAPTIONS)
    expected = [[2 / 4, 3 / 4, 0], [2 / 5, 0, 2 / 5], [0, 0, 0]]
    np.testing.assert_allclose(labels, np.float32(expected))
    assert labels.dtype == np.float32


def test_an_images_labels_depend_on_its_own_captions_alone():
    found = find()
    labels = found.image_labels(CAPTIONS)
    np.testing.assert_array_equal(found.image_labels(CAPTIONS[::-1]), labels[::-1])
    np.testing.assert_array_equal(found.image_labels(CAPTIONS[1:2]), labels[1:2])
    assert found.image_labels([]).shape == (0, 3)


def test_ties_are_in_the_order_of_the_images_counts():
    captions = [["pond barn", "barn pond", "barn"], ["pond silo", "silo"]]
    assert find(captions).words == ["barn", "pond", "silo"]


def test_runs_of_punctuation_count_as_the_empty_word():
    counts = concepts.count_words(["a, barn", "a - barn"])
    assert counts == {"": 3, "a": 2, "barn": 2}


def test_a_sentence_that_ends_in_mid_line_ends_no_word_differently():
    counts = concepts.count_words(["a barn near a pond. some barns.", "a pond, a barn"])
    assert counts == {"a": 4, "barn": 2, "pond": 2, "": 2}


def test_size_and_min_repeats():
    assert find(size=2).words == ["silo", "barn"]
    assert find(min_repeats=3).words == ["barn"]
    assert len(find(min_repeats=9)) == 0
    np.testing.assert_allclose(
        find(min_repeats=3).image_labels(CAPTIONS), np.float32([[3 / 4], [0], [0]])
    )


def test_word_concepts():
    found = find()
    assert found.word_concepts(["a", "pond", "silo", "pond", UNKNOWN]).tolist() == [1, 0, 1]
    assert found.word_concepts([]).tolist() == [0, 0, 0]


def test_forms_of_a_word_are_one_concept():
    found = find(
        [["two barns by a pond", "a barn"], ["ponds", "silos and ponds"]],
        form=lambda word: word.rstrip("s"),
    )
    assert found.words == ["barn", "pond"]
    np.testing.assert_array_equal(
        found.image_labels([["a barn, barns", "silo"], ["a pond", "the pond"]]), [[1, 0], [0, 1]]
    )
    assert found.word_concepts(["many", "barns"]).tolist() == [1, 0]


def test_english_lemmas():
    pytest.importorskip("simplemma")
    lemma = english_lemma()
    words = ["planes", "plane", "buildings", "trees", "houses", "grass", "", "residential"]
    forms = ["plane", "plane", "building", "tree", "house", "grass", "", "residential"]
    assert [lemma(word) for word in words] == forms
    assert unchanged("planes") == "planes"


def test_released_rsicd_concepts_and_labels(rsicd):
    lines = (rsicd / "train_caps.txt").read_text("utf-8").splitlines()
    ids = json.loads((rsicd / "vocab.json").read_text())["word2idx"]
    captions = [lines[start : start + 5] for start in range(0, len(lines), 5)]
    found = concepts.find(captions, Vocabulary(sorted(ids, key=ids.__getitem__)).words)
    assert found.words == json.loads((rsicd / "tag_vocab_512.json").read_text())

    released = (rsicd / "tags_label_th_1.txt").read_text().splitlines()
    expected = np.zeros((len(released), 512), np.float32)
    column = {word: index for index, word in enumerate(found.words)}
    for line in released:
        image_id, tags = line.split("\t")
        counts = {tag.split(":")[0]: int(tag.split(":")[1]) for tag in tags.split()}
        for word, count in counts.items():
            if word in column:
                expected[int(image_id), column[word]] = count / max(counts.values())
    assert len(released) == 9828
    np.testing.assert_array_equal(found.image_labels(captions), expected)
