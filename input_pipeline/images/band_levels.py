"""Turns the numbers in the bands of a TIFF file into 8-bit levels, see `band_images`."""

from __future__ import annotations

import math

import numpy as np
import tifffile

from input_pipeline.images.files import UnreadableImageError

MEASURED_PIXELS = 2**22
"""Of larger images, percentiles are of at most as many pixels, evenly spaced."""

NO_WHITE = "its pixels are signed or floating-point numbers, and nothing says which is white"
MAYBE_DIFFERENCES = "its numbers may be differences of pixels: readers do not agree on them"
TWO_BANDS = "it has 2 bands, and nothing says which to take"


def stretched(
    bands: np.ndarray, page: tifffile.TiffPage, stretch: tuple[float, float]
) -> np.ndarray:
    """Stretches the numbers of bands to levels of which 255 is white.

    Args:
      bands: [height, width, 3], of any unsigned, signed or floating-point type.
      page: that they are from: it says whether 0 is white, and what is no data.
      stretch: percentiles that become 0 and 255.

    Returns:
      u8[height, width, 3].
    """
    nodata, is_inverted = _nodata(page), is_zero_white(page)
    each = [_stretched(bands[..., band], nodata, stretch, is_inverted) for band in range(3)]
    return np.stack(each, axis=-1)


def highest_bits(bands: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Takes the highest 8 bits of numbers, as they are stored: 255 is black where 0 is white.

    Args:
      bands: [height, width, 3].
      page: that they are from: it says how many bits count; fewer than 8 are spread over 0 to 255.

    Returns:
      u8[height, width, 3].

    Raises:
      UnreadableImageError: nothing says what is black and what is white.
    """
    if bands.dtype.kind != "u":
        raise UnreadableImageError(f"{NO_WHITE} (an index can be made with a stretch, as 2,98)")
    bits = page.bitspersample
    is_short = bits < 8
    levels = bands.astype(np.uint16) * 255 // (2**bits - 1) if is_short else bands >> (bits - 8)
    return levels.astype(np.uint8)


def is_zero_white(page: tifffile.TiffPage) -> bool:
    """Returns whether the lowest numbers of the colours are the lightest."""
    return page.photometric == tifffile.PHOTOMETRIC.MINISWHITE


def is_stretchable(page: tifffile.TiffPage) -> bool:
    """Returns whether a stretch counts: 8 bits that have no sign reach from black to white."""
    return page.dtype is None or page.dtype.kind != "u" or page.bitspersample > 8


def divided(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Divides colours by the alpha that they are multiplied by, as PIL does.

    Args:
      colours: u8[height, width, 3].
      alpha: u8[height, width, 3], of each colour.

    Returns:
      u8[height, width, 3]; 0 where alpha is.
    """
    levels = colours.astype(np.uint16) * 255 // np.maximum(alpha, 1)
    return np.where(alpha > 0, np.minimum(levels, 255), 0).astype(np.uint8)


def _nodata(page: tifffile.TiffPage) -> float | None:
    """Returns GDAL's no-data value; tifffile's own is 0 if the text does not fit the pixels."""
    text = str(page.tags.valueof("GDAL_NODATA", default=""))
    try:
        return float(text.replace(",", ".").strip("\0 "))
    except ValueError:
        return None


@np.errstate(over="ignore", invalid="ignore")  # of values that only float64 has, or not even that
def _stretched(
    band: np.ndarray, nodata: float | None, stretch: tuple[float, float], is_inverted: bool
) -> np.ndarray:
    """Maps percentiles of [height, width] to 0 and 255, or 255 and 0 -> u8[height, width]."""
    step = math.ceil(math.sqrt(band.size / MEASURED_PIXELS))
    valid = np.isfinite(band)
    if nodata is not None:
        valid &= band != nodata
    measured = band[::step, ::step][valid[::step, ::step]]
    if not measured.size:
        return np.zeros(band.shape, np.uint8)
    low, high = np.percentile(measured.astype(np.float64), stretch)
    levels = np.clip(band, low, high, dtype=np.float64)
    levels -= low
    if high > low:
        levels /= high - low
    levels *= 255
    if is_inverted:
        np.subtract(255, levels, out=levels)
    levels[~valid] = 0
    return np.rint(levels, out=levels).astype(np.uint8)
