"""Images are decoded once for each size, and an interruption loses nothing that was done."""

import io
import resource

import numpy as np
import pytest
from PIL import Image

from input_pipeline.errors import DataError
from input_pipeline.images import decoded
from input_pipeline.images.decoded import DecodedImages, EncodedImage, decode

NUM_IMAGES, SIZE = 40, 8


def pixels(row):
    return np.random.default_rng(row).integers(0, 256, (10, 12, 3), np.uint8)


def read(row):
    encoded = io.BytesIO()
    Image.fromarray(pixels(row)).save(encoded, "PNG")
    return EncodedImage(f"{row}.png", encoded.getvalue())


def expected(row):
    return np.asarray(Image.fromarray(pixels(row)).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


@pytest.fixture
def images(tmp_path):
    return DecodedImages(tmp_path / "images", SIZE, NUM_IMAGES)


def noted(read_rows, interrupted_at=None):
    def read_and_note(row):
        if row == interrupted_at:
            raise KeyboardInterrupt
        read_rows.append(row)
        return read(row)

    return read_and_note


def check_rows(array, rows):
    for row in range(NUM_IMAGES):
        wanted = expected(row) if row in rows else np.zeros_like(expected(row))
        np.testing.assert_array_equal(array[row], wanted)


def test_rows_are_filled_once_where_they_are_asked_for(images):
    read_rows = []
    array = decode(images, np.array([3, 17, 17, 0]), noted(read_rows))
    assert array.shape == (NUM_IMAGES, SIZE, SIZE, 3)
    assert isinstance(array, np.memmap)
    assert not array.flags.writeable
    check_rows(array, {0, 3, 17})
    assert np.flatnonzero(images.filled()).tolist() == [0, 3, 17]
    check_rows(decode(images, np.arange(6), noted(read_rows)), {*range(6), 17})
    assert read_rows == [0, 3, 17, 1, 2, 4, 5]
    # Sizes have arrays of their own.
    other = DecodedImages(images.folder, 4, NUM_IMAGES)
    assert decode(other, np.arange(3), read).shape == (NUM_IMAGES, 4, 4, 3)
    assert (images.filled().sum(), other.filled().sum()) == (7, 3)


def test_an_interruption_loses_little_and_nothing_is_trusted_too_early(images, monkeypatch):
    monkeypatch.setattr(decoded, "SAVED_EVERY", 4)
    with pytest.raises(KeyboardInterrupt):
        decode(images, np.arange(NUM_IMAGES), noted([], interrupted_at=21))
    assert np.flatnonzero(images.filled()).tolist() == list(range(20))
    read_rows = []
    check_rows(decode(images, np.arange(NUM_IMAGES), noted(read_rows)), range(NUM_IMAGES))
    assert read_rows == list(range(20, NUM_IMAGES))


def test_an_unreadable_image_is_named(images):
    def damaged(row):
        return EncodedImage("5.png", b"not an image") if row == 5 else read(row)

    with pytest.raises(DataError, match=r"^The image 5\.png cannot be read: .*\.$"):
        decode(images, np.arange(NUM_IMAGES), damaged)
    assert not images.filled()[5]
    np.testing.assert_array_equal(decode(images, np.array([5]), read)[5], expected(5))


@pytest.mark.parametrize("which", ["path", "filled_path"])
@pytest.mark.parametrize("kept", [0, 1, 150])
def test_damaged_files_are_made_again(images, which, kept):
    decode(images, np.arange(6), read)
    path = getattr(images, which)
    path.write_bytes(path.read_bytes()[:kept])
    check_rows(decode(images, np.array([2]), read), {2})
    assert np.flatnonzero(images.filled()).tolist() == [2]


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path):
    # Files may not grow beyond a few rows: writing fails as on a full disk.
    big = DecodedImages(tmp_path, 64, NUM_IMAGES)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            decode(big, np.arange(NUM_IMAGES), read)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not big.filled().any()
    assert decode(big, np.arange(NUM_IMAGES), read)[NUM_IMAGES - 1].any()
