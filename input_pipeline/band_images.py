"""Reads images that have more bands, or more bits, than a picture: satellites' TIFF files.

Every file becomes 8-bit RGB. TIFF files of more than 8 bits or more than four bands are read by
tifffile, signed ones too, and all of them if bands are chosen. Bands and a stretch count for TIFF
files only. PIL reads whatever else there is, see `image_conversion`.

| in the TIFF file                 | in the image                                              |
|----------------------------------|-----------------------------------------------------------|
| many bands                       | the three chosen ones, as red, green and blue             |
| one band, or one chosen          | repeated for red, green and blue                          |
| one band and transparency        | the band, as if it were the only one                      |
| two bands                        | refused, unless bands are chosen                          |
| unsigned integers, 8 bits        | as they are; a stretch does not count for them            |
| unsigned integers, fewer bits    | spread over 0 to 255; a stretch does not count for them   |
| unsigned integers, more bits     | the highest 8 bits, or stretched                          |
| signed integers, floating point  | stretched, or else refused: nothing says what is white    |
| palette, CMYK, YCbCr, LAB        | as PIL reads them; neither bands nor a stretch count      |
| several pages                    | the first                                                 |

A stretch maps two percentiles of each band to 0 and 255, and what lies beyond them to the same. It
leaves out NaN, infinity and the value that GDAL has marked as no data, which become 0.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tifffile
from PIL import Image

from input_pipeline import band_levels, image_files
from input_pipeline.errors import DataError
from input_pipeline.image_files import MAX_PIXELS, UnreadableImageError

MAX_DECODED_BYTES = 2**30
"""Of all bands of an image; more are not decoded."""

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PLAIN = (
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.RGB,
)
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


def read_rgb(encoded: bytes, choice: BandChoice) -> Image.Image:
    """Decodes an image file wholly.

    Args:
      encoded: the file's bytes.
      choice: of bands, for TIFF files.

    Returns:
      8-bit RGB.

    Raises:
      UnreadableImageError: it is damaged, too large or of an unknown kind, or has not the bands.
    """
    if not encoded.startswith(_TIFF_STARTS) or (not choice.bands and _is_picture(encoded)):
        return image_files.read_rgb(encoded)
    bands = _read_bands(encoded, choice)
    return image_files.read_rgb(encoded) if bands is None else Image.fromarray(bands)


def resize(encoded: bytes, size: int, choice: BandChoice) -> np.ndarray:
    """Decodes an image file and resizes it as `image_files.resize` does.

    Args:
      encoded: the file's bytes.
      size: pixels a side; the proportions are not kept.
      choice: of bands, for TIFF files.

    Returns:
      u8[size, size, 3].

    Raises:
      UnreadableImageError: see `read_rgb`.
    """
    image = read_rgb(encoded, choice)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _is_picture(encoded: bytes) -> bool:
    """Whether PIL reads a TIFF file of this kind as it should; it may be damaged nevertheless."""
    if not image_files.knows_kind(encoded):
        return False
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            page = file.pages.first
            if page.samplesperpixel == 2 and not _has_alpha(page):
                return False  # PIL would take the second band for transparency
            if page.dtype is not None and page.dtype.kind not in "ub":
                return False  # PIL would take signed numbers for unsigned ones
            # Of more bits or bands PIL may read the wrong ones.
            return page.bitspersample <= 8 and page.samplesperpixel <= 4
    except Exception:  # damaged bytes lead tifffile to anything; PIL will say what is wrong
        return True


def _read_bands(encoded: bytes, choice: BandChoice) -> np.ndarray | None:
    """Returns u8[height, width, 3], or None if the file's colours are for PIL to convert."""
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            page = file.pages.first
            if page.photometric not in _PLAIN:
                return None
            numbers = _chosen_of(page, choice.bands)
            if page.bitspersample == page.samplesperpixel == 1:
                return None  # black and white, mostly in the codes of fax machines
            _check(page)
            bands = _decode(page)[:, :, numbers]
            return band_levels.levels_of(bands, page, choice.stretch)
    except UnreadableImageError:
        raise
    except MemoryError as error:
        raise UnreadableImageError("there is not enough memory for it") from error
    # Damaged bytes lead tifffile and the codecs to anything.
    except Exception as error:
        raise UnreadableImageError(_damage(error)) from error


def _damage(error: Exception) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in str(error)).strip()
    return (
        f"it is a TIFF file, damaged or of an unknown kind ({text[:100] or type(error).__name__})"
    )


def _check(page: tifffile.TiffPage) -> None:
    """Refuses what would take too much memory, or cannot be decoded, before it is."""
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


def _has_alpha(page: tifffile.TiffPage) -> bool:
    return any(extra in _ALPHA for extra in page.extrasamples)


def _chosen_of(page: tifffile.TiffPage, bands: tuple[int, ...]) -> list[int]:
    """Returns which bands are red, green and blue, from 0."""
    num_bands = page.samplesperpixel
    if not bands and num_bands == 2 and not _has_alpha(page):
        raise UnreadableImageError("it has 2 bands, and nothing says which to take")
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
