"""Reads the bands of TIFF files: pictures, and satellites' files of more bands, or more bits.

`reader` has the table of what becomes what. You can choose which bands become red, green and blue,
and how pixels of more than 8 bits become levels: by their highest 8 bits, or by a stretch, which
maps two percentiles of each band to 0 and 255, and what lies beyond them to the same. A stretch
leaves out NaN, infinity and the value that GDAL has marked as no data, which become 0.

Black and white, palettes, CMYK, YCbCr and LAB are left to PIL: neither bands nor a stretch count
for them. Compressions whose strips say themselves how large they are, as JPEG 2000, are refused;
JPEG is read if its own header agrees with the tags.
"""

from __future__ import annotations

import io
import logging
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tifffile

from input_pipeline.errors import DataError
from input_pipeline.images.files import MAX_PIXELS, UnreadableImageError, one_line
from input_pipeline.images.pillow import NO_WHITE, TWO_BANDS

MAX_DECODED_BYTES = 2**30
"""Images whose bands take more bytes are not decoded."""

MEASURED_PIXELS = 2**22
"""Percentiles of larger images are taken of at most as many pixels, evenly spaced."""

_PLAIN = ("MINISBLACK", "MINISWHITE", "RGB")
# Compressions that are decoded into as many bytes as the tags say: none, LZW, Deflate, PackBits,
# LZMA and Zstandard; and JPEG, which is as large as its own header says.
_BOUNDED = (1, 5, 8, 32773, 32946, 34925, 34926, 50000, 50013)
_JPEG = (6, 7, 33007, 34892)
_STARTS_OF_FRAME = {*range(0xFFC0, 0xFFD0)} - {0xFFC4, 0xFFC8, 0xFFCC}  # of JPEG's markers
_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)

_WRONG_BANDS = "Bands are one or three numbers from 1, as 4,3,2, not {}."
_WRONG_STRETCH = "A stretch is two percentiles from 0 to 100, the lower first, as 2,98, not {}."

logging.getLogger("tifffile").disabled = True  # what it reports of damaged files, it raises, too


@dataclass(frozen=True)
class BandChoice:
    """Which bands of a TIFF file make the image, and how.

    Attributes:
      bands: The numbers, from 1, of the bands for red, green and blue; a single one is repeated.
        Empty takes 1, 2, 3, or the only band beside transparency.
      stretch: The percentiles that become 0 and 255; None takes the highest 8 bits.
    """

    bands: tuple[int, ...] = ()
    stretch: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.bands) not in (0, 1, 3) or any(band < 1 for band in self.bands):
            raise DataError(_WRONG_BANDS.format(",".join(map(str, self.bands))))
        if self.stretch is not None and not 0 <= self.stretch[0] < self.stretch[1] <= 100:
            listed = ",".join(f"{percentile:g}" for percentile in self.stretch)
            raise DataError(_WRONG_STRETCH.format(listed))


def parse_choice(bands: Sequence[str] = (), stretch: Sequence[str] = ()) -> BandChoice:
    """Reads a choice as the command line has it: `["4", "3", "2"]` and `["2", "98"]`, or none."""
    try:
        numbers = tuple(int(band) for band in bands)
    except ValueError as error:
        raise DataError(_WRONG_BANDS.format(",".join(bands))) from error
    try:
        low, high = map(float, stretch) if stretch else (0.0, 0.0)
    except ValueError as error:
        raise DataError(_WRONG_STRETCH.format(",".join(stretch))) from error
    return BandChoice(numbers, (low, high) if stretch else None)


def read_levels(encoded: bytes, page_number: int, choice: BandChoice) -> np.ndarray | None:
    """Decodes the bands of a TIFF file, or raises an `UnreadableImageError` that says why not.

    Args:
      encoded: The file's bytes.
      page_number: Which page of the file to read, from 0.
      choice: Which bands to take.

    Returns:
      u8[height, width, 3] of red, green and blue, or None if the colours are for PIL to convert.
    """
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            page = file.pages[page_number].aspage()
            if getattr(page.photometric, "name", "") not in _PLAIN:
                return None
            numbers = _red_green_blue(page, choice.bands)
            if page.bitspersample == page.samplesperpixel == 1:
                return None  # black and white, mostly in the codes of fax machines
            _refuse_before_decoding(page)
            levels = _levels(_decode(page), numbers, page, choice.stretch)
            return np.ascontiguousarray(_upright(levels, page.tags.valueof("Orientation")))
    except (UnreadableImageError, MemoryError):
        raise
    # Damaged bytes lead tifffile and the codecs to anything.
    except Exception as error:
        raise UnreadableImageError(
            f"it is a TIFF file, damaged or of an unknown kind ({one_line(error)})"
        ) from error


def _red_green_blue(page: tifffile.TiffPage, bands: tuple[int, ...]) -> list[int]:
    """Returns the numbers of the bands, from 0."""
    num_bands = page.samplesperpixel
    has_alpha = any(extra in _ALPHA for extra in page.extrasamples)
    if not bands and num_bands == 2 and not has_alpha:
        raise UnreadableImageError(TWO_BANDS)
    wanted = bands or ((1,) if num_bands <= 2 else (1, 2, 3))
    if max(wanted) > num_bands:
        noun = "band" if num_bands == 1 else "bands"
        raise UnreadableImageError(f"it has {num_bands} {noun}, not the chosen band {max(wanted)}")
    return [band - 1 for band in (wanted * 3)[:3]]


def _refuse_before_decoding(page: tifffile.TiffPage) -> None:
    if page.compression not in (*_BOUNDED, *_JPEG):
        name = getattr(page.compression, "name", page.compression)
        raise UnreadableImageError(f"TIFF files of the compression {name} are not read")
    if page.imagewidth * page.imagelength * page.imagedepth > MAX_PIXELS:
        raise UnreadableImageError(f"it has more than {MAX_PIXELS} pixels")
    chunk = math.prod(page.chunks) * page.dtype.itemsize if page.dtype is not None else 0
    if max(page.nbytes, chunk) > MAX_DECODED_BYTES:
        raise UnreadableImageError(f"its bands take more than {MAX_DECODED_BYTES} bytes")
    if page.imagedepth != 1 or 0 in page.shape:
        raise UnreadableImageError(f"its shape is {page.shape}")
    if page.dtype is None or page.dtype.kind not in "uif":
        raise UnreadableImageError("its pixels are no integers and no floating-point numbers")
    places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if any(not offset for offset, _ in places):
        raise UnreadableImageError("parts of it are missing")
    if any(offset + count > page.parent.filehandle.size for offset, count in places):
        raise UnreadableImageError("it is truncated")
    if page.compression in _JPEG:
        file, (rows, columns) = page.parent.filehandle, page.chunks[:2]
        for offset, count in places:
            file.seek(offset)
            height, width = _height_and_width_of_jpeg((page.jpegheader or b"") + file.read(count))
            # An encoder may have filled the last blocks of 8 or 16 pixels up.
            if height > rows + 15 or width > columns + 15:
                raise UnreadableImageError("its strips or tiles are larger than it says")


def _height_and_width_of_jpeg(encoded: bytes) -> tuple[int, int]:
    place = 2  # behind the mark of a JPEG
    while place + 9 <= len(encoded):
        marker, length, height, width = struct.unpack_from(">HHxHH", encoded, place)
        if marker in _STARTS_OF_FRAME:
            return height, width
        place += 2 + length
    raise UnreadableImageError("its strips or tiles are damaged")


def _decode(page: tifffile.TiffPage) -> np.ndarray:
    """Returns [height, width, bands]."""
    pixels = page.asarray(maxworkers=1)  # images are read in threads already
    pixels = pixels.reshape(page.shaped)[:, 0]  # planes, height, width, interleaved bands
    return pixels[0] if page.shaped[0] == 1 else np.moveaxis(pixels[..., 0], 0, -1)


def _levels(
    pixels: np.ndarray,
    numbers: list[int],
    page: tifffile.TiffPage,
    stretch: tuple[float, float] | None,
) -> np.ndarray:
    is_zero_white = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    # Unsigned numbers of 8 bits reach from black to white already.
    if stretch is not None and (pixels.dtype.kind != "u" or page.bitspersample > 8):
        nodata = _nodata(page)
        each = [_stretched(pixels[..., band], nodata, stretch, is_zero_white) for band in numbers]
        return np.stack(each, axis=-1)
    levels = _highest_bits(pixels[..., numbers], page.bitspersample)
    if tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples:
        num_colours = page.samplesperpixel - len(page.extrasamples)
        alpha = num_colours + page.extrasamples.index(tifffile.EXTRASAMPLE.ASSOCALPHA)
        divisors = _highest_bits(pixels[..., [alpha] * 3], page.bitspersample)
        divisors[..., [number >= num_colours for number in numbers]] = 255  # further bands stay
        levels = _divided(levels, divisors)
    # Only now: what is multiplied by alpha is the number that is stored, and alpha has no white.
    return ~levels if is_zero_white else levels


def _highest_bits(bands: np.ndarray, bits: int) -> np.ndarray:
    """Returns u8 of the highest 8 of the bits; fewer than 8 are spread over 0 to 255."""
    if bands.dtype.kind != "u":
        raise UnreadableImageError(f"{NO_WHITE} (an index can be made with a stretch, as 2,98)")
    is_short = bits < 8
    levels = bands.astype(np.uint16) * 255 // (2**bits - 1) if is_short else bands >> (bits - 8)
    return levels.astype(np.uint8)


def _divided(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Divides u8 colours by the u8 alpha that they are multiplied by, as PIL does."""
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
    band: np.ndarray, nodata: float | None, stretch: tuple[float, float], is_zero_white: bool
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
    if is_zero_white:
        np.subtract(255, levels, out=levels)
    levels[~valid] = 0
    return np.rint(levels, out=levels).astype(np.uint8)


def _upright(stored: np.ndarray, orientation: object) -> np.ndarray:
    """Turns [height, width, 3] as TIFF's tag says: where its first row and column belong."""
    first_row_is_at_the_side = orientation in (5, 6, 7, 8)
    shown = stored.swapaxes(0, 1) if first_row_is_at_the_side else stored
    from_the_bottom, from_the_right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return shown[:: -1 if from_the_bottom else 1, :: -1 if from_the_right else 1]
