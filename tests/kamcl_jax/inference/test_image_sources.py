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
    grey = array[..., 0]
    expected = pixels(np.repeat(grey[..., None], 3, axis=2), SIZE)
    for source in (grey, Image.fromarray(grey.astype(np.uint16) << 8)):
        np.testing.assert_array_equal(pixels(source, SIZE), expected)


def test_rows_come_in_the_order_asked_for(array):
    sources = [array, array[:7], array[:, :9]]
    images = LazyImages(sources, SIZE)
    assert images.shape == (3, SIZE, SIZE, 3)
    for rows in ([0, 1, 2], [2, 0], [1, 1]):
        expected = np.stack([pixels(sources[row], SIZE) for row in rows])
        np.testing.assert_array_equal(images[np.array(rows)], expected)


def damaged(folder):
    (folder / "damaged.png").write_bytes(b"not an image")
    return folder / "damaged.png"


def truncated(folder):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = folder / "image.png"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return Image.open(path)  # which reads no pixel yet


def closed(folder):
    Image.new("RGB", (4, 4)).save(folder / "image.png")
    image = Image.open(folder / "image.png")
    image.close()
    return image


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder / "a\0b.png", "The image .* cannot be read: not a file name"),
        (lambda folder: folder / "nowhere.png", r"nowhere\.png cannot be read: missing\."),
        (damaged, r"damaged\.png cannot be read: its format is not known\."),
        (truncated, r"number 1 \(from 0\) cannot be read: it is truncated"),
        (closed, r"number 1 \(from 0\) cannot be read: it has been closed"),
        (lambda _: Image.new("F", (4, 4)), "PIL holds its pixels as 32-bit or floating-point"),
        (lambda _: np.zeros((4, 4)), r"an array must be uint8.*, not float64\[4, 4\]"),
        (lambda _: np.zeros((4, 4, 4), np.uint8), r"an array must be .*, not uint8\[4, 4, 4\]"),
        (lambda _: np.zeros((0, 4, 3), np.uint8), r"an array must be .*, not uint8\[0, 4, 3\]"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(make, sentence, array, tmp_path):
    with pytest.raises(DataError, match=sentence):
        LazyImages([array, make(tmp_path)], SIZE)[np.array([0, 1])]
