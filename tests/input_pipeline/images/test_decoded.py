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


def test_rows_are_filled_where_they_are_asked_for(images):
    rows = np.array([3, 17, 17, 0])
    array = decode(images, rows, read)
    assert array.shape == (NUM_IMAGES, SIZE, SIZE, 3)
    assert isinstance(array, np.memmap)
    assert not array.flags.writeable
    for row in range(NUM_IMAGES):
        wanted = expected(row) if row in rows else np.zeros_like(expected(row))
        np.testing.assert_array_equal(array[row], wanted)
    assert np.flatnonzero(images.filled()).tolist() == [0, 3, 17]


def noted(read_rows, interrupted_at=None):
    def read_and_note(row):
        if row == interrupted_at:
            raise KeyboardInterrupt
        read_rows.append(row)
        return read(row)

    return read_and_note


def test_only_what_is_missing_is_read(images):
    read_rows = []
    for first, last in [(0, 10), (5, 15), (0, 15)]:
        array = decode(images, np.arange(first, last), noted(read_rows))
    assert read_rows == list(range(15))
    for row in range(15):
        np.testing.assert_array_equal(array[row], expected(row))


def test_an_interruption_loses_little_and_nothing_is_trusted_too_early(images, monkeypatch):
    monkeypatch.setattr(decoded, "SAVED_EVERY", 4)
    with pytest.raises(KeyboardInterrupt):
        decode(images, np.arange(NUM_IMAGES), noted([], interrupted_at=21))
    assert np.flatnonzero(images.filled()).tolist() == list(range(20))
    read_rows = []
    array = decode(images, np.arange(NUM_IMAGES), noted(read_rows))
    assert read_rows == list(range(20, NUM_IMAGES))
    for row in range(NUM_IMAGES):
        np.testing.assert_array_equal(array[row], expected(row))


def test_an_unreadable_image_is_named(images):
    def damaged(row):
        return EncodedImage("5.png", b"not an image") if row == 5 else read(row)

    with pytest.raises(DataError, match=r"^The image 5\.png cannot be read: .*\.$"):
        decode(images, np.arange(NUM_IMAGES), damaged)
    assert not images.filled()[5]
    np.testing.assert_array_equal(decode(images, np.array([5]), read)[5], expected(5))


@pytest.mark.parametrize("which", ["path", "filled_path"])
@pytest.mark.parametrize("damage", [lambda data: data[:150], lambda data: b"", lambda data: b"x"])
def test_damaged_files_are_made_again(images, which, damage):
    decode(images, np.arange(6), read)
    path = getattr(images, which)
    path.write_bytes(damage(path.read_bytes()))
    array = decode(images, np.array([2]), read)
    np.testing.assert_array_equal(array[2], expected(2))
    assert np.flatnonzero(images.filled()).tolist() == [2]


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(images):
    decode(images, np.array([0]), read)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Files may not grow beyond a few rows: writing fails as on a full disk.
    big = DecodedImages(images.folder, 64, NUM_IMAGES)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            decode(big, np.arange(NUM_IMAGES), read)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not big.filled().any()
    assert decode(big, np.arange(NUM_IMAGES), read)[NUM_IMAGES - 1].any()


def test_sizes_have_arrays_of_their_own(images):
    other = DecodedImages(images.folder, 4, NUM_IMAGES)
    decode(images, np.arange(3), read)
    assert decode(other, np.arange(3), read).shape == (NUM_IMAGES, 4, 4, 3)
    assert images.filled().sum() == other.filled().sum() == 3
