"""Which captions count as the same text."""

import numpy as np
import pytest

from input_pipeline.language.texts import equal_text_ids, num_shared_captions


def test_texts_are_equal_up_to_white_space_alone():
    captions = ["a port .", " a\t port\n. ", "A port .", "a port.", "", " \n", "a port ."]
    assert equal_text_ids(iter(captions)).tolist() == [0, 0, 1, 2, 3, 3, 0]


@pytest.mark.parametrize(
    ("texts", "shared"),
    [
        ([0, 1, 2, 3, 4, 5], 0),
        ([0, 0, 1, 1, 1, 2], 0),  # repeated by the same image alone
        ([0, 0, 0, 1, 1, 2], 3),  # the first image says it twice, the second once
        ([0, 1, 1, 2, 3, 0], 4),
        ([0, 0, 0, 0, 0, 0], 6),
    ],
)
def test_shared_captions_are_counted(texts, shared):
    image_of_caption = np.array([0, 0, 1, 1, 1, 2])
    assert num_shared_captions(np.array(texts), image_of_caption) == shared
