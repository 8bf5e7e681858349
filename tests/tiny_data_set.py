"""A tiny data set in the files of the KAMCL release and in those of its publisher."""

import json

import numpy as np
import pytest
from PIL import Image

TRAIN = ["silo_1.png", "silo_2.jpg", "pond_1.tif", "pond_2.png"]
TEST = ["barn_1.png", "barn_2.png"]


def captions_of(names):
    return [f"{name.split('_')[0]} number {k} , {name[:-4]} ." for name in names for k in range(5)]


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


@pytest.fixture
def pictures(tmp_path):
    """A folder with images of different colours in `images`."""
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    for index, name in enumerate(TRAIN + TEST):
        pixels = np.full((20, 30, 3), 10 * index, np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
    return folder


@pytest.fixture
def source(pictures):
    """In the release's layout: train lists one name an image, test one a caption."""
    write_lines(pictures / "train_caps.txt", captions_of(TRAIN))
    write_lines(pictures / "train_filename.txt", TRAIN)
    write_lines(pictures / "test_caps.txt", captions_of(TEST))
    write_lines(pictures / "test_filename.txt", [name for name in TEST for _ in range(5)])
    return pictures


@pytest.fixture
def karpathy():
    """The same captions as the publisher's JSON, with a validation split and splits mixed."""
    splits = ["train", "test", "val", "train", "train", "test"]
    names = [TRAIN[0], TEST[0], *TRAIN[1:], TEST[1]]
    images = [
        {
            "filename": name,
            "split": split,
            "sentences": [{"raw": text, "tokens": text.split()} for text in captions_of([name])],
        }
        for name, split in zip(names, splits, strict=True)
    ]
    return json.dumps({"images": images, "dataset": "tiny"})


@pytest.fixture
def prepared(tmp_path):
    return tmp_path / "prepared"
