"""Turns whatever PIL has opened into 8-bit RGB; `image_reader` says what becomes what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from input_pipeline.images.band_levels import MAYBE_DIFFERENCES, NO_WHITE, TWO_BANDS

# Tags of TIFF.
_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC, _PLANAR, _PREDICTOR = 258, 259, 262, 284, 317
_SAMPLES_PER_PIXEL, _TILE_WIDTH, _TILE_HEIGHT, _SAMPLE_FORMAT = 277, 322, 323, 339

_UNSIGNED = 1
_WITHOUT_PREDICTOR = (1, 32773)
"""Compressions (none and PackBits) at which PIL takes differences for pixels."""
_NO_WHITE_IN_PIL = (
    "PIL holds its pixels as 32-bit or floating-point numbers, and nothing says which is white"
)
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
"""Modes whose colours are multiplied by alpha, and those to which PIL divides them."""


def refusal(image: Image.Image, max_pixels: int) -> str | None:
    """Says why an image must not be used: PIL reads it wrongly, or would take too much memory.

    Args:
      image: opened; decoded or not.
      max_pixels: that a tile of a TIFF may have; PIL itself has looked at the image's size.

    Returns:
      The reason in a few words, or None.
    """
    tags = _tiff_tags(image)
    # PIL takes signed bytes for unsigned ones, and the first of two bands for grey.
    if set(tags.get(_SAMPLE_FORMAT, ())) - {_UNSIGNED}:
        return NO_WHITE
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        return _NO_WHITE_IN_PIL
    if tags.get(_PREDICTOR, 1) != 1 and tags.get(_COMPRESSION) in _WITHOUT_PREDICTOR:
        return MAYBE_DIFFERENCES
    if image.mode == "L" and tags.get(_SAMPLES_PER_PIXEL) == 2:
        return TWO_BANDS
    width, height = tags.get(_TILE_WIDTH), tags.get(_TILE_HEIGHT)
    if isinstance(width, int) and isinstance(height, int) and width * height > max_pixels:
        return f"it has tiles of more than {max_pixels} pixels"
    if tags.get(_PLANAR) == 2 and max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8:
        return "its 16-bit colours lie in separate planes" if tags.get(_COMPRESSION) == 1 else None
    return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Decodes and converts an image that is not refused; raises whatever PIL does."""
    # PIL's own conversion of more than 8 bits clips at 255: nearly all would become white.
    if image.mode.startswith("I"):
        return Image.fromarray(_highest_bits(image)).convert("RGB")
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    return image.convert("RGB")


def _highest_bits(image: Image.Image) -> np.ndarray:
    """Returns the highest 8 of 12 or 16 bits of grey, u8[height, width]."""
    tags = _tiff_tags(image)
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    grey = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    return ~grey if tags.get(_PHOTOMETRIC) == 0 else grey  # PIL leaves a white 0 as it is


def _tiff_tags(image: Image.Image) -> Mapping[int, Any]:
    return image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]
