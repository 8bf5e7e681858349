"""Turns the numbers in the bands of a TIFF file into 8-bit levels, see `band_images`."""

from __future__ import annotations

import math

import numpy as np
import tifffile

from input_pipeline.image_files import UnreadableImageError

MEASURED_PIXELS = 2**22
"""Of larger images, percentiles are of at most as many pixels, evenly spaced."""

NO_WHITE = (
    "its pixels are signed or floating-point numbers: nothing says which is white, unless an index "
    "is made with a stretch, as 2,98"
)
TWO_BANDS = "it has 2 bands, and nothing says which to take"


def levels_of(
    bands: np.ndarray, page: tifffile.TiffPage, stretch: tuple[float, float] | None
) -> np.ndarray:
    """Turns the numbers of three bands into levels of red, green and blue.

    Args:
      bands: [height, width, 3], of any unsigned, signed or floating-point type.
      page: that they are from: it says how many bits count, whether 0 is white, and what is no
        data.
      stretch: percentiles that become 0 and 255; None takes the highest 8 bits.

    Returns:
      u8[height, width, 3].

    Raises:
      UnreadableImageError: nothing says what is black and what is white.
    """
    bits = page.bitspersample
    is_inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    if stretch is not None and is_stretchable(page):
        nodata = _nodata(page)
        each = [_stretched(bands[..., band], nodata, stretch, is_inverted) for band in range(3)]
        return np.stack(each, axis=-1)
    if bands.dtype.kind != "u":
        raise UnreadableImageError(NO_WHITE)
    is_short = bits < 8
    levels = bands.astype(np.uint16) * 255 // (2**bits - 1) if is_short else bands >> (bits - 8)
    return ~levels.astype(np.uint8) if is_inverted else levels.astype(np.uint8)


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
