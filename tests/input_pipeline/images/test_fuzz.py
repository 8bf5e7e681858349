"""Damaged image files lead to a reason, and to nothing else.

All damage is drawn from seeds: what fails once fails always.
"""

import random
import resource
import struct
import sys

import numpy as np
import pytest
from damaged_bytes import cut, with_flipped_bits, with_replaced_bytes
from handmade_images import encode, written_tiff
from PIL import Image

from input_pipeline.images.files import UnreadableImageError
from input_pipeline.images.reader import read_rgb

VARIANTS = 120
HEIGHT, WIDTH = 40, 48


def scene():
    """Some rows of noise and some that compress well."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    pixels[10:30] = pixels[10]
    return Image.fromarray(pixels)


FILES = {
    "JPEG": encode(scene(), "JPEG"),
    "progressive JPEG": encode(scene(), "JPEG", progressive=True),
    "PNG": encode(scene(), "PNG"),
    "PNG of a palette": encode(scene().quantize(16), "PNG", transparency=b"\x00\x80"),
    "TIFF": encode(scene(), "TIFF"),
    "LZW in TIFF": encode(scene(), "TIFF", compression="tiff_lzw"),
    "deflate in TIFF": encode(scene(), "TIFF", compression="tiff_adobe_deflate"),
    "JPEG in TIFF": encode(scene(), "TIFF", compression="jpeg"),
    "tiles in TIFF": written_tiff(
        np.asarray(scene())[..., 0], tile=(16, 16), compression="deflate"
    ),
    "BMP": encode(scene(), "BMP"),
    "GIF": encode(scene(), "GIF"),
    "WebP": encode(scene(), "WEBP"),
    "lossless WebP": encode(scene(), "WEBP", lossless=True),
}


def of_another_size(draw, data):
    """Writes huge or no sizes wherever the header seems to have a width or a height."""
    for side in (WIDTH, HEIGHT, WIDTH - 1, HEIGHT - 1):
        for code in (">I", "<I", ">H", "<H"):
            most = 256 ** struct.calcsize(code) - 1
            wanted = draw.choice([0, 1, 9000, 16_383, 2**31 - 1, most])
            old, new = struct.pack(code, side), struct.pack(code, min(wanted, most))
            if draw.random() < 0.5:
                data = data[:600].replace(old, new, 1) + data[600:]
    return data


def under_another_header(draw, data):
    other = draw.choice(list(FILES.values()))
    length = draw.choice([2, 4, 8, 16, 64])
    return other[:length] + data[length:]


DAMAGES = [cut, with_flipped_bits, with_replaced_bytes, of_another_size, under_another_header]


def is_read(data):
    try:
        return read_rgb(data).mode == "RGB"
    except UnreadableImageError as error:
        reason = str(error)
    assert reason.isprintable(), "a reason is one line"
    assert 0 < len(reason) < 150
    return False


def peak_memory():
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FILES)
def test_damaged_files_are_read_or_refused(kind):
    before, outcomes = peak_memory(), set()
    for seed in range(VARIANTS):
        draw = random.Random(f"{kind} {seed}")
        outcomes.add(is_read(DAMAGES[seed % len(DAMAGES)](draw, FILES[kind])))
    assert outcomes == {True, False}
    assert peak_memory() - before < 2**30


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FILES)
def test_truncated_files_are_refused_unless_all_pixels_are_there(kind):
    data = FILES[kind]
    whole = np.asarray(read_rgb(data))
    lengths = {*range(0, len(data), 23), *range(len(data) - 30, len(data))}
    read = [data[:length] for length in lengths if is_read(data[:length])]
    assert len(read) < 30
    for truncated in read:
        np.testing.assert_array_equal(np.asarray(read_rgb(truncated)), whole)
