"""Turns whatever PIL opens into 8-bit RGB; the table in `reader` says what becomes what."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from input_pipeline.images.files import MAX_PIXELS, UnreadableImageError

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
"""PIL's names of the formats that are read. JPEG includes MPO; EPS would start a program."""

NO_WHITE = "its pixels are signed or floating-point numbers, and nothing says which is white"
TWO_BANDS = "it has 2 bands, and nothing says which to take"
_NO_WHITE_IN_PIL = (
    "PIL holds its pixels as 32-bit or floating-point numbers, and nothing says which is white"
)

# Tags of TIFF.
_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC, _PLANAR, _PREDICTOR = 258, 259, 262, 284, 317
_SAMPLES_PER_PIXEL, _TILE_WIDTH, _TILE_HEIGHT, _SAMPLE_FORMAT = 277, 322, 323, 339


# What matters of what PIL warns of leads to an error as well.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(encoded: bytes, page: int) -> Image.Image:
    """Decodes a page of an image file, from 0; damage leads PIL to exceptions of any type."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            image.seek(page)
            return to_rgb(image)
    except UnidentifiedImageError:
        raise UnreadableImageError(_unidentified(encoded)) from None


def _unidentified(encoded: bytes) -> str:
    start = encoded[:16].ljust(16, b"\0")
    for name in FORMATS:
        _, accepts = Image.OPEN.get(name, (None, None))  # a build of PIL may lack some
        if accepts is not None and accepts(start) is True:
            return f"it is a {name} file, damaged or of an unknown kind"
    return "its format is not known"


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts what PIL has opened to 8-bit RGB, unless PIL reads it wrongly or it is too large."""
    reason = _reason_to_refuse(image)
    if reason is not None:
        raise UnreadableImageError(reason)
    # PIL's own conversion of more than 8 bits clips at 255: nearly all would become white.
    if image.mode.startswith("I"):
        return Image.fromarray(_highest_bits(image)).convert("RGB")
    if image.mode in ("La", "RGBa"):  # the colours are multiplied by alpha: PIL divides them
        image = image.convert(image.mode.upper())
    return image.convert("RGB")


def _reason_to_refuse(image: Image.Image) -> str | None:
    tags = _tiff_tags(image)
    # PIL takes signed bytes for unsigned ones (1), and the first of several bands for grey.
    if set(tags.get(_SAMPLE_FORMAT, ())) - {1}:
        return NO_WHITE
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        return _NO_WHITE_IN_PIL
    bands = tags.get(_SAMPLES_PER_PIXEL, 1)
    if len(image.getbands()) == 1 and bands > 1:
        return TWO_BANDS if bands == 2 else f"PIL has decoded only the first of its {bands} bands"
    if tags.get(_PREDICTOR, 1) != 1 and tags.get(_COMPRESSION) in (1, 32773):
        return "its pixels are stored as differences, which PIL does not add up"
    if image.width * image.height > MAX_PIXELS:
        return f"it has more than {MAX_PIXELS} pixels"
    width, height = tags.get(_TILE_WIDTH), tags.get(_TILE_HEIGHT)
    if isinstance(width, int) and isinstance(height, int) and width * height > MAX_PIXELS:
        return f"it has tiles of more than {MAX_PIXELS} pixels"
    if tags.get(_PLANAR) == 2 and max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8:
        return "its 16-bit colours lie in separate planes" if tags.get(_COMPRESSION) == 1 else None
    return None


def _highest_bits(image: Image.Image) -> np.ndarray:
    """Returns the highest 8 of 12 or 16 bits of grey, u8[height, width]."""
    tags = _tiff_tags(image)
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    grey = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    return ~grey if tags.get(_PHOTOMETRIC) == 0 else grey  # PIL leaves a white 0 as it is


def _tiff_tags(image: Image.Image) -> Mapping[int, Any]:
    return image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]
