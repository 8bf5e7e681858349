"""Concepts and soft labels, against hand-counted captions and the release's files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from input_pipeline import concepts
from input_pipeline.errors import DataError
from input_pipeline.vocabulary import UNKNOWN, Vocabulary

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = Path(os.environ.get("KAMCL_REFERENCE_DATA", ROOT.parent / "shared" / "reference_data"))

VOCABULARY = Vocabulary(["barn", "silo", "pond", UNKNOWN])
CAPTIONS = {
    7: ["The barn, the silo.", "the barn by the pond", "Barn and silo"],
    3: ["a pond; a pond!", "a rock", "a silo", "a silo"],
    5: ["nothing twice"],
}


@pytest.fixture(scope="module")
def rsicd():
    folder = REFERENCE / "rsicd"
    if not folder.is_dir():
        pytest.skip(f"the comparison with the released RSICD concepts needs {folder}")
    return folder


def test_words_are_ranked_by_total_count():
    built = concepts.build(CAPTIONS, VOCABULARY)
    assert built.words == ["silo", "barn", "pond"]  # 4, 3, 2
    assert built.image_ids.tolist() == [7, 3, 5]


def test_labels_are_counts_over_the_largest_count_stop_words_included():
    built = concepts.build(CAPTIONS, VOCABULARY)
    expected = [[2 / 4, 3 / 4, 0], [2 / 5, 0, 2 / 5], [0, 0, 0]]
    np.testing.assert_allclose(built.labels, np.float32(expected))
    assert built.labels.dtype == np.float32


def test_ties_are_in_the_order_of_the_images_counts():
    captions = [["pond barn", "barn pond", "barn"], ["pond silo", "silo"]]
    assert concepts.build(captions, VOCABULARY).words == ["barn", "pond", "silo"]


def test_runs_of_punctuation_count_as_the_empty_word():
    counts = concepts.count_words(["a, barn", "a - barn"])
    assert counts == {"": 3, "a": 2, "barn": 2}


def test_size_and_min_repeats():
    assert concepts.build(CAPTIONS, VOCABULARY, size=2).words == ["silo", "barn"]
    assert concepts.build(CAPTIONS, VOCABULARY, min_repeats=3).words == ["barn"]
    assert len(concepts.build(CAPTIONS, VOCABULARY, min_repeats=9)) == 0


def test_labels_are_looked_up_by_id():
    built = concepts.build(CAPTIONS, VOCABULARY)
    np.testing.assert_array_equal(built.labels_for([5, 7]), built.labels[[2, 0]])
    assert built.labels_for([]).shape == (0, 3)
    with pytest.raises(DataError, match="image id 8"):
        built.labels_for(np.array([7, 8]))


def test_sequences_number_the_images():
    assert concepts.build(list(CAPTIONS.values()), VOCABULARY).image_ids.tolist() == [0, 1, 2]


def test_word_concepts():
    built = concepts.build(CAPTIONS, VOCABULARY)
    assert built.word_concepts(["a", "pond", "silo", "pond", UNKNOWN]).tolist() == [1, 0, 1]
    assert built.word_concepts([]).tolist() == [0, 0, 0]


def test_json_keeps_the_words():
    built = concepts.build(CAPTIONS, VOCABULARY)
    read = concepts.Concepts.from_json(built.to_json())
    assert read.words == built.words
    assert read.labels.shape == (0, 3)
    with pytest.raises(DataError, match="concepts"):
        concepts.Concepts.from_json('{"words": []}')


def test_released_rsicd_concepts_and_labels(rsicd):
    lines = (rsicd / "train_caps.txt").read_text("utf-8").splitlines()
    ids = json.loads((rsicd / "vocab.json").read_text())["word2idx"]
    built = concepts.build(
        [lines[start : start + 5] for start in range(0, len(lines), 5)],
        Vocabulary(sorted(ids, key=ids.__getitem__)),
    )
    assert built.words == json.loads((rsicd / "tag_vocab_512.json").read_text())

    released = (rsicd / "tags_label_th_1.txt").read_text().splitlines()
    expected = np.zeros((len(released), 512), np.float32)
    column = {word: index for index, word in enumerate(built.words)}
    for line in released:
        image_id, tags = line.split("\t")
        counts = {tag.split(":")[0]: int(tag.split(":")[1]) for tag in tags.split()}
        for word, count in counts.items():
            if word in column:
                expected[int(image_id), column[word]] = count / max(counts.values())
    assert len(released) == 9828
    np.testing.assert_array_equal(built.labels, expected)
