"""Squares of images: the same pixels as torchvision's transforms, and what they are made of."""

import numpy as np
import pytest
from PIL import Image

from input_pipeline.images.fitting import FILTERS, Fitting, fit

SIZES = [(7, 7), (31, 20), (20, 31), (224, 224), (225, 224), (300, 229), (1001, 333), (64, 500)]
STRIPS = [(500, 5), (3, 300), (1, 99)]


def picture(size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1] // 2 + 1, size[0] // 2 + 1, 3))
    return Image.fromarray(pixels.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", SIZES + STRIPS)
@pytest.mark.parametrize("side", [16, 225])
@pytest.mark.parametrize("name", FILTERS)
def test_the_middle_of_the_resized_image_is_cut_out(name, side, size):
    found = fit(picture(size), side, Fitting("shortest", name))
    assert found.shape == (side, side, 3)
    longer = int(side * max(size) / min(size))
    wide = size[0] >= size[1]
    target = (longer, side) if wide else (side, longer)
    resized = np.asarray(picture(size).resize(target, FILTERS[name]))
    start = round((longer - side) / 2)
    part = slice(start, start + side)
    np.testing.assert_array_equal(found, resized[:, part] if wide else resized[part])


def test_a_long_strip_is_not_resized_whole(monkeypatch):
    made, resize = [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, *how: made.append(how[0]) or resize(self, *how)
    )
    square = fit(Image.new("RGB", (100_000, 1), "red"), 224, Fitting("shortest", "bicubic"))
    assert (square == (255, 0, 0)).all()
    assert made[0][0] < 20 * 224


@pytest.mark.parametrize("name", FILTERS)
def test_squashing_leaves_nothing_out(name):
    found = fit(picture((31, 20)), 16, Fitting("squash", name))
    expected = picture((31, 20)).resize((16, 16), FILTERS[name])
    np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize("side", [16, 224])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_open_clips_transform_gives_the_same_pixels(mode, side):
    open_clip = pytest.importorskip("open_clip")
    transform = open_clip.image_transform(
        side, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode
    )
    for size in SIZES:
        theirs = np.asarray(transform(picture(size)).permute(1, 2, 0) * 255).round()
        np.testing.assert_array_equal(fit(picture(size), side, Fitting(mode, "bicubic")), theirs)
