"""The embedded data set: disjoint scenes, decided by the options alone."""

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


def test_captions_are_drawn_without_preparing(prepared):
    opened = datasets.open_prepared("synthetic", None, prepared, size=32, **COUNTS)
    assert datasets.read_texts("synthetic", None, size=32, **COUNTS) == opened.texts()


def test_options_decide_the_fingerprint(prepared):
    options = {"train": 2, "validation": 2, "test": 2, "size": 32}
    first = datasets.open_prepared("synthetic", None, prepared, **options)
    again = datasets.open_prepared("synthetic", None, prepared, **options)
    other = datasets.open_prepared("synthetic", None, prepared, **options, seed=1)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    with pytest.raises(DataError, match="'test' must be positive, not 0"):
        datasets.open_prepared("synthetic", None, prepared, test=0)
