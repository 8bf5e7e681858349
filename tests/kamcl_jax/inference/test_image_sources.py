"""Files, arrays and PIL images of any size become the pixels that a data set's images become."""

import numpy as np
import pytest
from PIL import Image

from input_pipeline.errors import DataError
from input_pipeline.images import reader
from kamcl_jax.inference.image_sources import LazyImages, pixels

SIZE = 16


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 256, (30, 47, 3)).astype(np.uint8)


def test_every_kind_of_source_gives_the_pixels_of_a_prepared_data_set(array, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(array).save(path)
    expected = reader.resize(path.read_bytes(), SIZE)
    for source in (path, str(path), array, Image.fromarray(array)):
        np.testing.assert_array_equal(pixels(source, SIZE), expected)


def test_grey_is_repeated_for_red_green_and_blue(array):
    grey = np.repeat(array[..., :1], 3, axis=2)
    np.testing.assert_array_equal(pixels(array[..., 0], SIZE), pixels(grey, SIZE))


def test_sixteen_bits_of_grey_keep_their_brightness(array):
    grey = array[..., 0]
    sixteen = Image.fromarray(grey.astype(np.uint16) << 8)
    np.testing.assert_array_equal(pixels(sixteen, SIZE), pixels(grey, SIZE))


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [1, 1]])
def test_rows_come_in_the_order_asked_for(array, rows):
    sources = [array, array[:7], array[:, :9]]
    images = LazyImages(sources, SIZE)
    assert images.shape == (3, SIZE, SIZE, 3)
    expected = np.stack([pixels(sources[row], SIZE) for row in rows])
    np.testing.assert_array_equal(images[np.array(rows)], expected)


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return Image.open(path)  # which reads no pixel yet


def closed(path):
    Image.new("RGB", (4, 4)).save(path)
    image = Image.open(path)
    image.close()
    return image


@pytest.mark.parametrize(
    ("make", "reason"),
    [(truncated, "it is truncated"), (closed, "it has been closed")],
)
def test_an_opened_image_that_cannot_be_read_is_told(make, reason, array, tmp_path):
    with pytest.raises(DataError, match=rf"number 1 \(from 0\) cannot be read: {reason}"):
        LazyImages([array, make(tmp_path / "image.png")], SIZE)[np.array([0, 1])]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("a\0b.png", r"The image .* cannot be read: not a file name"),
        ("nowhere.png", r"The image .*nowhere\.png cannot be read: missing\."),
        ("damaged.png", r"The image .*damaged\.png cannot be read: its format is not known\."),
        (
            np.zeros((4, 4)),
            r"number 1 \(from 0\) .*: an array must be uint8.*, not float64\[4, 4\]",
        ),
        (np.zeros((4, 4, 4), np.uint8), r"an array must be .*, not uint8\[4, 4, 4\]"),
        (
            Image.new("F", (4, 4)),
            r"number 1 \(from 0\) .*: PIL holds its pixels as 32-bit or floating-point",
        ),
        (np.zeros((0, 4, 3), np.uint8), r"an array must be .*, not uint8\[0, 4, 3\]"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(source, sentence, array, tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"not an image")
    if isinstance(source, str):
        source = tmp_path / source
    with pytest.raises(DataError, match=sentence):
        LazyImages([array, source], SIZE)[np.array([0, 1])]
