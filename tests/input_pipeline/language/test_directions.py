import numpy as np

from input_pipeline.language.directions import say_direction

SAYING = [
    "the left bank of a river",
    "a road runs along the Right side.",
    "two planes in the upper-left corner",
    "the topmost of three tanks",
    "a pond in the NORTHEASTERN part",
    "a road from south-west to the harbor",
    "houses east of the railway",
    "trees above, meadows below",
    "a vertical road and horizontally parked cars",
    "the river flows downwards",
]
SILENT = [
    "many bright stops of a downtown line",
    "a stadium upon a hilltop in the middle",
    "uprights and a lowered bridge beside the seaside resort of Weston",
    "",
]


def test_whole_words_that_a_mirrored_or_turned_image_would_belie_count():
    found = say_direction(iter(SAYING + SILENT))
    assert found.dtype == bool
    np.testing.assert_array_equal(found, [True] * len(SAYING) + [False] * len(SILENT))
