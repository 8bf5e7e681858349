"""Turns whatever PIL has opened into 8-bit RGB.

| in the file                      | in the image                                                 |
|----------------------------------|--------------------------------------------------------------|
| grey of 1 to 8 bits              | repeated for red, green and blue; white is 255               |
| grey of 12 or 16 bits            | the same, of the highest 8 bits                              |
| colours of 16 bits               | the highest 8 bits (PPM: rounded)                            |
| signed, 32-bit or floating point | refused: nothing says which value is white                   |
| palette                          | its colours                                                  |
| alpha                            | dropped; the colours stay as they are stored                 |
| further bands of a TIFF          | the first three, or refused where PIL does not know them     |
| CMYK, YCbCr, LAB                 | converted by PIL; colour profiles are not applied            |
| several frames or pages          | the first                                                    |
| EXIF orientation                 | not applied, as in the release; PIL applies a TIFF's own tag |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

# Tags of TIFF.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT = 258, 262, 284, 322, 323


def refusal(image: Image.Image, max_pixels: int) -> str | None:
    """Says why PIL must not decode an image: it would be read wrongly, or take too much memory.

    Args:
      image: opened, not decoded yet.
      max_pixels: that a tile of a TIFF may have; PIL itself has looked at the image's size.

    Returns:
      The reason in a few words, or None.
    """
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        return "its pixels are signed, 32-bit or floating-point numbers"
    tags = _tiff_tags(image)
    width, height = tags.get(_TILE_WIDTH), tags.get(_TILE_HEIGHT)
    if isinstance(width, int) and isinstance(height, int) and width * height > max_pixels:
        return f"it has tiles of more than {max_pixels} pixels"
    if tags.get(_PLANAR) == 2 and max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8:
        codecs = {tile[0] for tile in getattr(image, "tile", [])}
        return "its 16-bit colours lie in separate planes" if "raw" in codecs else None
    return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Decodes and converts an image that is not refused; raises whatever PIL does."""
    # PIL's own conversion of more than 8 bits clips at 255: nearly all would become white.
    if image.mode.startswith("I"):
        return Image.fromarray(_highest_bits(image)).convert("RGB")
    return image.convert("RGB")


def _highest_bits(image: Image.Image) -> np.ndarray:
    """Returns the highest 8 of 12 or 16 bits of grey, u8[height, width]."""
    tags = _tiff_tags(image)
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    grey = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    return ~grey if tags.get(_PHOTOMETRIC) == 0 else grey  # PIL leaves a white 0 as it is


def _tiff_tags(image: Image.Image) -> Mapping[int, Any]:
    return image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]
