"""Reads every image as 8-bit RGB, for training, for search and for whoever uses a trained model.

There is one rule for all of them: an image is read as the release reads it, which is what PIL's
`Image.open(file).convert("RGB")` gives. Where that is wrong, because PIL knows 8 bits a colour and
pictures only, the image is read as the file's format says, or it is refused.

| in the file                      | in the image                                                 |
|----------------------------------|--------------------------------------------------------------|
| grey of 1 to 8 bits              | repeated for red, green and blue; white is 255               |
| grey of more bits                | the same, of the highest 8 bits                              |
| colours of 16 bits               | the highest 8 bits (PPM: rounded)                            |
| bands of a TIFF                  | the first three, or those that an index has chosen           |
| two bands, none of them alpha    | refused, unless an index has chosen bands                    |
| signed or floating point         | refused, unless an index has a stretch: nothing else says    |
|                                  | which value is white                                         |
| palette                          | its colours                                                  |
| alpha                            | dropped; the colours stay as they are stored                 |
| alpha that the colours of a TIFF | dropped; the colours are divided by it, as in PIL            |
| are multiplied by                |                                                              |
| CMYK, YCbCr, LAB                 | converted by PIL; colour profiles are not applied            |
| several frames or pages          | the first                                                    |
| a TIFF's orientation             | applied: it says in which order the file has its rows        |
| EXIF's orientation               | not applied: it is a remark on a photo that is stored turned |

tifffile reads the bands of TIFF files, see `band_images`. PIL reads whatever else there is. Which
of them reads a file depends on the file alone.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from input_pipeline.images import bands, pillow_settings, rgb
from input_pipeline.images.bands import BandChoice
from input_pipeline.images.files import MAX_PIXELS, UnreadableImageError, read_bytes
from input_pipeline.images.image_bar import image_bar

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
"""PIL's names of the formats that are read, no others: EPS would start a program. JPEG includes
MPO."""

_FIRST_BANDS = BandChoice()
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_strict_pillow = pillow_settings.StrictPillow(MAX_PIXELS)


def read_rgb(source: bytes | Image.Image, choice: BandChoice = _FIRST_BANDS) -> Image.Image:
    """Decodes an image wholly.

    PIL's global settings for truncated and for large images don't count, and PIL prints nothing.

    Args:
      source: a file's bytes, or what PIL has opened. A TIFF whose pixels PIL has not read yet is
        read from its file; for any other image PIL's pixels count, and `choice` does not.
      choice: of bands, for TIFF files.

    Returns:
      8-bit RGB.

    Raises:
      UnreadableImageError: it is damaged, too large or of a kind that is not read, or has not the
        bands.
    """
    formats = pillow_settings.load_formats(FORMATS)
    try:
        with _strict_pillow:
            if isinstance(source, bytes):
                return _decoded(source, 0, choice, formats)
            if _is_unread_tiff(source):
                return _decoded(_file_of(source), source.tell(), choice, formats)
            return _converted(source)
    except UnreadableImageError:
        raise
    # Damaged bytes lead PIL's plugins to anything, OSError, KeyError, struct.error and more. All
    # of them mean the same here, and none may end the work on the other images.
    except Exception as error:
        raise UnreadableImageError(_reason(error, source)) from error


def resize(source: bytes | Image.Image, size: int, choice: BandChoice = _FIRST_BANDS) -> np.ndarray:
    """Decodes an image and resizes it as the release's `Resize((size, size))` does.

    Args:
      source: see `read_rgb`.
      size: pixels a side; the proportions are not kept.
      choice: of bands, for TIFF files.

    Returns:
      u8[size, size, 3], by PIL's bilinear filter.

    Raises:
      UnreadableImageError: see `read_rgb`.
    """
    image = read_rgb(source, choice)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def check(path: Path) -> str | None:
    """Reads an image file and decodes it wholly.

    Args:
      path: of the file.

    Returns:
      Why it can't be used, in a few words, or None.
    """
    try:
        read_rgb(read_bytes(path))
    except UnreadableImageError as error:
        return str(error)
    return None


def check_all(paths: Sequence[Path], progress: str) -> list[str | None]:
    """Checks image files in threads; PIL works outside of Python's lock.

    Args:
      paths: of the files.
      progress: the progress bar's label; the bar is on stderr.

    Returns:
      For each file why it can't be used, in a few words, or None.
    """
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        return list(image_bar(progress, len(paths), pool.map(check, paths)))
    finally:
        pool.shutdown(cancel_futures=True)  # an interruption does not wait for all the others


def _decoded(
    encoded: bytes, page: int, choice: BandChoice, formats: tuple[str, ...]
) -> Image.Image:
    if not encoded:
        raise UnreadableImageError("it is empty (0 bytes)")
    if encoded.startswith(_TIFF_STARTS):
        levels = bands.read_levels(encoded, page, choice)
        if levels is not None:
            return Image.fromarray(levels)
    with Image.open(io.BytesIO(encoded), formats=formats) as image:
        image.seek(page)
        return _converted(image)


def _converted(image: Image.Image) -> Image.Image:
    refusal = rgb.refusal(image, MAX_PIXELS)
    if refusal is not None:
        raise UnreadableImageError(refusal)
    return rgb.to_rgb(image)


def _is_unread_tiff(image: Image.Image) -> bool:
    """Whether a TIFF is still to be decoded: PIL confuses sides of what it maps into memory."""
    return (
        image.format == "TIFF"
        and bool(getattr(image, "tile", None))
        and getattr(image, "fp", None) is not None
    )


def _file_of(image: Image.Image) -> bytes:
    file = image.fp  # type: ignore[attr-defined]
    file.seek(0)
    encoded: bytes = file.read()
    return encoded


def _reason(error: Exception, source: bytes | Image.Image) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS} pixels"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, UnidentifiedImageError) and isinstance(source, bytes):
        return _unidentified(source)
    if "truncated" in str(error).lower():
        return "it is truncated"
    if isinstance(source, Image.Image) and "closed" in str(error):
        return "it has been closed"
    text = "".join(letter if letter.isprintable() else " " for letter in str(error)).strip()
    return f"it is damaged ({text[:100] or type(error).__name__})"


def _unidentified(encoded: bytes) -> str:
    start = encoded[:16].ljust(16, b"\0")
    for name in pillow_settings.load_formats(FORMATS):
        accepts = Image.OPEN[name][1]
        if accepts is not None and accepts(start) is True:
            return f"it is a {name} file, damaged or of an unknown kind"
    return "its format is not known"
