"""The data set `synthetic`: disjoint scenes, decided by the options alone."""

import io

import pytest
from PIL import Image

from input_pipeline import datasets
from input_pipeline.errors import DataError

COUNTS = {"train": 5, "validation": 3, "test": 4}


def test_splits_are_disjoint_scenes(prepared):
    opened = datasets.open_prepared("synthetic", None, prepared, size=32, **COUNTS)
    assert opened.sizes == COUNTS
    ids = {split: [record["image_id"] for record in of] for split, of in opened.splits.items()}
    # Twins, 2k and 2k + 1, never fall into two splits.
    assert ids == {"train": [*range(5)], "validation": [6, 7, 8], "test": [10, 11, 12, 13]}
    with Image.open(io.BytesIO(opened.splits["test"][0]["image"])) as image:
        assert image.size == (32, 32)
    assert len(opened.splits["test"][0]["captions"]) == 5
    # Captions are worded without preparing, and the same.
    assert datasets.read_texts("synthetic", None, size=32, **COUNTS) == opened.texts()
    other = datasets.open_prepared("synthetic", None, prepared, size=32, **COUNTS, seed=1)
    assert other.fingerprint != opened.fingerprint


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"test": 0}, "'test' must be at least 1, not 0"),
        ({"size": 31}, "'size' must be at least 32, not 31"),
        ({"size": 513}, "'size' must be at most 512, not 513"),
        ({"seed": -1}, "'seed' must be at least 0, not -1"),
    ],
)
def test_options_out_of_range_are_refused(prepared, option, sentence):
    with pytest.raises(DataError, match=sentence):
        datasets.open_prepared("synthetic", None, prepared, **option)
