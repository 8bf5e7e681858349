"""Which captions count as the same text, and counts of a few captions, by hand."""

import numpy as np

from input_pipeline.language.texts import Texts, equal_text_ids, num_shared_captions
from input_pipeline.splits import findings

TEXTS = Texts(
    [0, 1, 2],
    ["a.png", "b.png", "c.png"],
    [
        ["a pond .", "a  pond .", "a barn by a pond"],
        ["a barn by a pond", "a silo"],
        ["a silo", "a silo", "a pond .", "."],
    ],
)


def test_texts_are_equal_up_to_white_space_alone():
    captions = ["a port .", " a\t port\n. ", "A port .", "a port.", "", " \n", "a port ."]
    assert equal_text_ids(iter(captions)).tolist() == [0, 0, 1, 2, 3, 3, 0]


def test_counts_and_repetitions():
    found = findings.examine(TEXTS)
    assert (found.images, found.captions, found.fewest, found.most) == (3, 9, 2, 4)
    assert found.repeated_within == 2  # white space makes no difference
    # "a pond ." in images 0 and 2, "a barn by a pond" in 0 and 1, "a silo" in 1 and 2
    assert (found.shared_texts, found.shared_captions) == (3, 8)
    assert num_shared_captions(equal_text_ids(TEXTS.all_captions), TEXTS.image_of_caption) == 8
    assert found.token_lengths.tolist() == [2, 2, 5, 5, 2, 2, 2, 2, 0]


def test_histogram_covers_every_length():
    bins = findings.histogram(np.array([0, 1, 5, 6, 6, 10, 21]))
    assert bins == [(0, 0, 1), (1, 5, 2), (6, 10, 3), (11, 15, 0), (16, 20, 0), (21, 25, 1)]
    assert findings.histogram(np.array([3]), 2) == [(1, 2, 0), (3, 4, 1)]


def test_images_are_counted_and_named():
    names = ["a.png", "b.png", "c.png", "d.png"]
    assert findings.count_and_name(names[:1], "left out") == "1 image left out (a.png)"
    words = "4 images without a caption (a.png, b.png, c.png, ...)"
    assert findings.count_and_name(names, "without a caption") == words
