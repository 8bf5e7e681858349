"""Reads the bands of TIFF files: pictures, and satellites' files of more bands, or more bits.

Which bands become red, green and blue, and how, can be chosen. `image_reader` reads other files.

| in the TIFF file                 | in the image                                              |
|----------------------------------|-----------------------------------------------------------|
| many bands                       | the three chosen ones, as red, green and blue             |
| one band, or one chosen          | repeated for red, green and blue                          |
| one band and alpha               | the band, as if it were the only one                      |
| two bands                        | refused, unless bands are chosen                          |
| unsigned integers, 8 bits        | as they are; a stretch does not count for them            |
| unsigned integers, fewer bits    | spread over 0 to 255; a stretch does not count for them   |
| unsigned integers, more bits     | the highest 8 bits, or stretched                          |
| signed integers, floating point  | stretched, or else refused: nothing says what is white    |
| colours multiplied by alpha      | divided by it, unless they are stretched                  |
| orientation                      | applied                                                   |
| compressions that the tags do    | refused; JPEG is read if its own header says the same     |
| not bound, as JPEG 2000          | size                                                      |
| black and white, palette, CMYK,  | left to PIL; neither bands nor a stretch count            |
| YCbCr, LAB                       |                                                           |

A stretch maps two percentiles of each band to 0 and 255, and what lies beyond them to the same. It
leaves out NaN, infinity and the value that GDAL has marked as no data, which become 0.
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
from input_pipeline.images import band_levels
from input_pipeline.images.files import MAX_PIXELS, UnreadableImageError

MAX_DECODED_BYTES = 2**30
"""Of all bands of an image; more are not decoded."""

_PLAIN = (
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.RGB,
)
_BOUNDED = (1, 5, 8, 32773, 32946, 34925, 34926, 50000, 50013)
"""Of TIFF's compressions those that are decoded into as many bytes as the tags say: none, LZW,
Deflate, PackBits, LZMA and Zstandard."""
_JPEG = (6, 7, 33007, 34892)  # which are as large as their own headers say

# Of JPEG's markers: frames say the size; what else may come before the first scan has a length.
_STARTS_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
_TABLES_AND_REMARKS = {0xC4, 0xCC, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}
_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)

_WRONG_BANDS = "Bands are one or three numbers from 1, as 4,3,2, not {}."
_WRONG_STRETCH = "A stretch is two percentiles from 0 to 100, the lower first, as 2,98, not {}."

logging.getLogger("tifffile").disabled = True  # what it reports of damaged files, it raises, too


@dataclass(frozen=True)
class BandChoice:
    """Which bands of a TIFF file make the image, and how.

    Attributes:
      bands: of red, green and blue, from 1; a single one is repeated. Empty: 1, 2, 3, or the only
        one beside transparency.
      stretch: percentiles that become 0 and 255; None takes the highest 8 bits.
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
    """Reads a choice as it is written on the command line.

    Args:
      bands: numbers, as `["4", "3", "2"]`; none for the default.
      stretch: two percentiles, or none.

    Raises:
      DataError: they cannot be read, or cannot be.
    """
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
    """Decodes the bands of a TIFF file.

    Args:
      encoded: the file's bytes.
      page_number: of the file, from 0.
      choice: of bands.

    Returns:
      u8[height, width, 3] of red, green and blue, or None if the colours are for PIL to convert.

    Raises:
      UnreadableImageError: it is damaged, too large or of an unknown kind, or has not the bands.
    """
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            page = file.pages[page_number].aspage()
            if page.photometric not in _PLAIN:
                return None
            numbers = _chosen_of(page, choice.bands)
            if page.bitspersample == page.samplesperpixel == 1:
                return None  # black and white, mostly in the codes of fax machines
            _check(page)
            levels = _levels(_decode(page), numbers, page, choice.stretch)
            return np.ascontiguousarray(_upright(levels, page.tags.valueof("Orientation")))
    except UnreadableImageError:
        raise
    except MemoryError as error:
        raise UnreadableImageError("there is not enough memory for it") from error
    # Damaged bytes lead tifffile and the codecs to anything.
    except Exception as error:
        raise UnreadableImageError(_damage(error)) from error


def _levels(
    pixels: np.ndarray,
    numbers: list[int],
    page: tifffile.TiffPage,
    stretch: tuple[float, float] | None,
) -> np.ndarray:
    """Returns u8[height, width, 3] of [height, width, bands]."""
    if stretch is not None and band_levels.is_stretchable(page):
        return band_levels.stretched(pixels[..., numbers], page, stretch)
    levels = band_levels.highest_bits(pixels[..., numbers], page)
    alpha = _premultiplied_by(page)
    if alpha is not None:
        num_colours = page.samplesperpixel - len(page.extrasamples)
        divisors = band_levels.highest_bits(pixels[..., [alpha] * 3], page)
        divisors[..., [number >= num_colours for number in numbers]] = 255  # further bands stay
        levels = band_levels.divided(levels, divisors)
    # Only now: what is multiplied by alpha is the number that is stored, and alpha has no white.
    return ~levels if band_levels.is_zero_white(page) else levels


def _premultiplied_by(page: tifffile.TiffPage) -> int | None:
    """Returns the alpha band that the colours are multiplied by, from 0, if they are."""
    if tifffile.EXTRASAMPLE.ASSOCALPHA not in page.extrasamples:
        return None
    first_extra = page.samplesperpixel - len(page.extrasamples)
    return first_extra + page.extrasamples.index(tifffile.EXTRASAMPLE.ASSOCALPHA)


def _upright(stored: np.ndarray, orientation: object) -> np.ndarray:
    """Turns [height, width, 3] as TIFF's tag says: where its first row and column belong."""
    first_row_is_at_the_side = orientation in (5, 6, 7, 8)
    shown = stored.swapaxes(0, 1) if first_row_is_at_the_side else stored
    from_the_bottom, from_the_right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return shown[:: -1 if from_the_bottom else 1, :: -1 if from_the_right else 1]


def _damage(error: Exception) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in str(error)).strip()
    return (
        f"it is a TIFF file, damaged or of an unknown kind ({text[:100] or type(error).__name__})"
    )


def _check(page: tifffile.TiffPage) -> None:
    """Refuses what would take too much memory, or cannot be decoded, before it is."""
    if page.compression not in (*_BOUNDED, *_JPEG):
        name = _compression_of(page)
        raise UnreadableImageError(f"TIFF files of the compression {name} are not read")
    if page.compression == tifffile.COMPRESSION.NONE and page.predictor != 1:
        raise UnreadableImageError(band_levels.MAYBE_DIFFERENCES)
    if page.imagewidth * page.imagelength * page.imagedepth > MAX_PIXELS:
        raise UnreadableImageError(f"it has more than {MAX_PIXELS} pixels")
    chunk = math.prod(page.chunks) * page.dtype.itemsize if page.dtype is not None else 0
    if max(page.nbytes, chunk) > MAX_DECODED_BYTES:
        raise UnreadableImageError(f"its bands take more than {MAX_DECODED_BYTES} bytes")
    if page.imagedepth != 1 or 0 in page.shape:
        raise UnreadableImageError(f"its shape is {page.shape}")
    if page.dtype is None or page.dtype.kind not in "uif":
        raise UnreadableImageError("its pixels are no integers and no floating-point numbers")
    if any(not offset for offset in page.dataoffsets):
        raise UnreadableImageError("parts of it are missing")
    if any(
        offset + count > page.parent.filehandle.size
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    ):
        raise UnreadableImageError("it is truncated")
    if page.compression in _JPEG:
        _check_jpegs(page)


def _compression_of(page: tifffile.TiffPage) -> str:
    try:
        return tifffile.COMPRESSION(page.compression).name
    except ValueError:
        return str(page.compression)


def _check_jpegs(page: tifffile.TiffPage) -> None:
    """Refuses strips and tiles that are huge by their own headers, not by the TIFF's tags."""
    file, (rows, columns) = page.parent.filehandle, page.chunks[:2]
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        height, width = _size_of_jpeg((page.jpegheader or b"") + file.read(count))
        # An encoder may have filled the last blocks of 8 or 16 pixels up.
        if height > rows + 15 or width > columns + 15:
            raise UnreadableImageError("its strips or tiles are larger than it says")


def _size_of_jpeg(encoded: bytes) -> tuple[int, int]:
    """Returns the (height, width) of the one frame that a JPEG has before its first scan.

    Decoders do not agree on filling bytes, markers without a length and second frames there, and
    encoders do not write them: a file with any of them could show each decoder another size.
    """
    size, place = None, 2
    while place + 9 <= len(encoded) and encoded[place] == 0xFF:
        marker, length, height, width = struct.unpack_from(">xBHxHH", encoded, place)
        if marker == _START_OF_SCAN and size is not None:
            return size
        if marker in _STARTS_OF_FRAME and size is None:
            size = height, width
        elif marker not in _TABLES_AND_REMARKS:
            break
        place += 2 + length
    raise UnreadableImageError("its strips or tiles are damaged")


def _has_alpha(page: tifffile.TiffPage) -> bool:
    return any(extra in _ALPHA for extra in page.extrasamples)


def _chosen_of(page: tifffile.TiffPage, bands: tuple[int, ...]) -> list[int]:
    """Returns which bands are red, green and blue, from 0."""
    num_bands = page.samplesperpixel
    if not bands and num_bands == 2 and not _has_alpha(page):
        raise UnreadableImageError(band_levels.TWO_BANDS)
    wanted = bands or ((1,) if num_bands <= 2 else (1, 2, 3))
    if max(wanted) > num_bands:
        noun = "band" if num_bands == 1 else "bands"
        raise UnreadableImageError(f"it has {num_bands} {noun}, not the chosen band {max(wanted)}")
    return [band - 1 for band in (wanted * 3)[:3]]


def _decode(page: tifffile.TiffPage) -> np.ndarray:
    """Returns [height, width, bands]."""
    pixels = page.asarray(maxworkers=1)  # images are read in threads already
    pixels = pixels.reshape(page.shaped)[:, 0]  # planes, height, width, interleaved bands
    return pixels[0] if page.shaped[0] == 1 else np.moveaxis(pixels[..., 0], 0, -1)
