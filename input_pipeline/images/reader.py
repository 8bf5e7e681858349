"""Reads every image as 8-bit RGB, for training, for search and for whoever uses a trained model.

There is one rule for all of them: an image is read as the release reads it, which is what PIL's
`Image.open(file).convert("RGB")` gives. But PIL knows only pictures with 8 bits a colour: where it
would misread a file, the image is read as the file's format says, or it is refused.

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

`bands` reads the bands of TIFF files with tifffile. `pillow` reads whatever else there is with PIL.
Which of them reads a file depends on the file alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from input_pipeline.images import bands, files, pillow
from input_pipeline.images.bands import BandChoice
from input_pipeline.images.files import UnreadableImageError
from input_pipeline.images.fitting import AS_RELEASE, Fitting, fit

_FIRST_BANDS = BandChoice()
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_rgb(source: bytes | Image.Image, choice: BandChoice = _FIRST_BANDS) -> Image.Image:
    """Decodes a whole image to 8-bit RGB, or raises an `UnreadableImageError` that says why not.

    Args:
      source: A file's bytes, or what PIL has opened. A TIFF whose pixels PIL has not read yet is
        read from its file; for any other image PIL's pixels count, and `choice` does not.
      choice: Which bands of a TIFF file to take.
    """
    try:
        if isinstance(source, bytes):
            return _decode(source, 0, choice)
        if _is_unread_tiff(source):
            return _decode(_file_of(source), source.tell(), choice)
        return pillow.to_rgb(source)
    except UnreadableImageError:
        raise
    # Damaged bytes lead PIL's plugins to anything, OSError, KeyError, struct.error and more. All
    # of them mean the same here, and none may end the work on the other images.
    except Exception as error:
        raise UnreadableImageError(_reason(error)) from error


def resize(
    source: bytes | Image.Image,
    size: int,
    choice: BandChoice = _FIRST_BANDS,
    fitting: Fitting = AS_RELEASE,
) -> np.ndarray:
    """Reads an image as `read_rgb` does and makes a square of it: `fit`, u8[size, size, 3]."""
    return fit(read_rgb(source, choice), size, fitting)


def check(path: Path) -> str | None:
    """Decodes an image file and says in a few words why it can't be used, or returns None."""
    try:
        read_rgb(files.read_bytes(path))
    except UnreadableImageError as error:
        return str(error)
    return None


def check_all(paths: Sequence[Path], progress: str) -> list[str | None]:
    """Checks image files, see `check`; `progress` is the label of the progress bar on stderr."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)  # PIL works outside of Python's lock
    try:
        return list(files.image_bar(progress, len(paths), pool.map(check, paths)))
    finally:
        pool.shutdown(cancel_futures=True)  # an interruption does not wait for all the others


def _decode(encoded: bytes, page: int, choice: BandChoice) -> Image.Image:
    if not encoded:
        raise UnreadableImageError("it is empty (0 bytes)")
    if encoded.startswith(_TIFF_STARTS):
        levels = bands.read_levels(encoded, page, choice)
        if levels is not None:
            return Image.fromarray(levels)
    return pillow.decode(encoded, page)


def _is_unread_tiff(image: Image.Image) -> bool:
    """Whether a TIFF is still to be decoded: PIL confuses sides of what it maps into memory."""
    is_unread = bool(getattr(image, "tile", None)) and getattr(image, "fp", None) is not None
    return image.format == "TIFF" and is_unread


def _file_of(image: Image.Image) -> bytes:
    file = image.fp  # type: ignore[attr-defined]
    file.seek(0)
    encoded: bytes = file.read()
    return encoded


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {files.MAX_PIXELS} pixels"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if "truncated" in str(error).lower():
        return "it is truncated"
    if "closed image" in str(error):
        return "it has been closed"
    return f"it is damaged ({files.one_line(error)})"
