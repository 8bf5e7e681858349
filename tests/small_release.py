"""A small data set in the release's layout, whose images repeat different words."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from input_pipeline.datasets import open_prepared
from input_pipeline.loading import load_prepared
from input_pipeline.settings import DataSettings

NUM_TRAIN, NUM_TEST = 10, 3
WORDS = "silo pond barn pier road field roof hill".split()  # noqa: SIM905


def caption(image, number):
    """Two words that the image repeats, one that changes: labels differ between images."""
    first, second = WORDS[image % 8], WORDS[image * 3 % 8]
    return f"the {first} and the {second} near a {WORDS[(image + number) % 8]}. it is big ."


def pixels(image):
    return np.random.default_rng(image).integers(0, 256, (30, 40, 3), np.uint8)


def write_source(folder, num_train, caption_of):
    (folder / "images").mkdir(parents=True)
    for split, first, count in (("train", 0, num_train), ("test", num_train, NUM_TEST)):
        images = range(first, first + count)
        for image in images:
            Image.fromarray(pixels(image)).save(folder / "images" / f"{image}.png")
        captions = [caption_of(image, number) for image in images for number in range(5)]
        (folder / f"{split}_caps.txt").write_text("\n".join(captions) + "\n")
        names = "".join(f"{image}.png\n" for image in images)
        (folder / f"{split}_filename.txt").write_text(names)


@pytest.fixture
def small_source(tmp_path):
    """Its files."""
    write_source(tmp_path / "source", NUM_TRAIN, caption)
    return tmp_path / "source"


@pytest.fixture
def load_small(small_source):
    """Loads it, see `load_from`."""
    return partial(load_from, small_source)


def load_from(source, **changes):
    """Prepares beside the source and returns the splits, with small images and all words."""
    settings = DataSettings(**{"train_size": 24, "image_size": 16, "min_count": 1} | changes)
    return load_prepared(open_prepared("rsicd", source, source.parent / "prepared"), settings)
