"""Concepts and soft labels, against hand-counted captions and the release's files."""

import json

import numpy as np
import pytest

from input_pipeline.language.concepts import count_words, find_concepts
from input_pipeline.language.vocabulary import UNKNOWN
from kamcl_jax.config.fields import FIELDS

WORDS = ["barn", "silo", "pond", UNKNOWN]
CAPTIONS = [
    ["The barn, the silo.", "the barn by the pond", "Barn and silo"],
    ["a pond; a pond!", "a rock", "a silo", "a silo"],
    ["nothing twice"],
]


def find(captions=CAPTIONS, **changes):
    return find_concepts(captions, WORDS, **changes)


def test_words_are_ranked_by_total_count():
    found = find()
    assert found.words == ["silo", "barn", "pond"]
    assert found.totals == [4, 3, 2]
    # Ties are in the order of the images' counts.
    tied = [["pond barn", "barn pond", "barn"], ["pond silo", "silo"]]
    assert find(tied).words == ["barn", "pond", "silo"]


def test_labels_are_counts_over_the_largest_count_of_the_images_own_captions():
    # Stop words take part in the largest count.
    labels = find().image_labels(CAPTIONS)
    expected = np.float32([[2 / 4, 3 / 4, 0], [2 / 5, 0, 2 / 5], [0, 0, 0]])
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(find().image_labels(CAPTIONS[1:2]), expected[1:2])
    assert find().image_labels([]).shape == (0, 3)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        # silo, barn, pond; of the images' words, those that are no concepts: "the" 4, "a" 5.
        ("largest", [[2 / 4, 3 / 4, 0], [2 / 5, 0, 2 / 5], [0, 0, 0]]),
        ("concepts", [[2 / 3, 1, 0], [1, 0, 1], [0, 0, 0]]),
        ("captions", [[2 / 3, 1, 0], [2 / 4, 0, 2 / 4], [0, 0, 0]]),
        ("present", [[1, 1, 0], [1, 0, 1], [0, 0, 0]]),
    ],
)
def test_labels_are_scaled_as_asked(scale, expected):
    labels = find(label_scale=scale).image_labels(CAPTIONS)
    np.testing.assert_array_equal(labels, np.float32(expected))
    # A caption may name a word twice, and an image a concept more often than it has captions.
    (of_more_ponds,) = find(label_scale=scale).image_labels([["a pond, a pond"] * 2 + ["a silo"]])
    assert 0 < of_more_ponds[2] <= 1
    assert FIELDS["concepts.label_scale"].rule.holds(scale)


def test_words_are_counted_without_regard_to_sentences():
    # A run of punctuation counts as the empty word.
    assert count_words(["a, barn", "a - barn"]) == {"": 3, "a": 2, "barn": 2}
    counts = count_words(["a barn near a pond. some barns.", "a pond, a barn"])
    assert counts == {"a": 4, "barn": 2, "pond": 2, "": 2}


def test_size_and_min_repeats():
    assert find(size=2).words == ["silo", "barn"]
    assert len(find(min_repeats=9)) == 0
    found = find(min_repeats=3)
    assert found.words == ["barn"]
    assert found.image_labels(CAPTIONS).tolist() == [[3 / 4], [0], [0]]


def test_captions_name_concepts():
    assert find().columns_of(["a", "pond", "silo", "pond", UNKNOWN]) == [2, 0, 2]


def test_forms_of_a_word_are_one_concept():
    found = find(
        [["two barns by a pond", "a barn"], ["ponds", "silos and ponds"]],
        form=lambda word: word.rstrip("s"),
    )
    assert found.words == ["barn", "pond"]
    labels = found.image_labels([["a barn, barns", "silo"], ["a pond", "the pond"]])
    np.testing.assert_array_equal(labels, [[1, 0], [0, 1]])
    assert found.columns_of(["many", "barns"]) == [0]


def test_released_rsicd_concepts_and_labels(released_rsicd):
    lines = (released_rsicd / "train_caps.txt").read_text("utf-8").splitlines()
    words = json.loads((released_rsicd / "vocab.json").read_text())["word2idx"]
    captions = [lines[start : start + 5] for start in range(0, len(lines), 5)]
    found = find_concepts(captions, words)
    assert found.words == json.loads((released_rsicd / "tag_vocab_512.json").read_text())

    released = (released_rsicd / "tags_label_th_1.txt").read_text().splitlines()
    labels = found.image_labels(captions)
    assert len(released) == len(labels) == 9828
    expected = np.zeros_like(labels)
    column = {word: index for index, word in enumerate(found.words)}
    for line in released:
        image_id, tags = line.split("\t")
        counts = {tag.split(":")[0]: int(tag.split(":")[1]) for tag in tags.split()}
        for word in counts.keys() & column.keys():
            expected[int(image_id), column[word]] = counts[word] / max(counts.values())
    np.testing.assert_array_equal(labels, expected)
