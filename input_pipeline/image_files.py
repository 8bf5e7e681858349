"""Finds, checks and converts the image files of a data set.

Every image becomes 8-bit RGB; `image_conversion` says how. No other formats than `FORMATS` are
tried: reading EPS would start a program.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from input_pipeline import image_conversion, pillow_settings
from input_pipeline.errors import DataError
from input_pipeline.image_bar import image_bar

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
"""PIL's names of the formats that are read; JPEG includes MPO."""

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded; a pixel takes 4 to 8 bytes of memory."""

MAX_FILE_BYTES = 2**30
"""Larger files are not read."""

_MISSING = "missing"

_strict_pillow = pillow_settings.StrictPillow(MAX_PIXELS)


class UnreadableImageError(ValueError):
    """An image can't be read; the text is a reason in a few words, like 'it is truncated'."""


@dataclass(frozen=True)
class FoundImage:
    """An image file that is there.

    Attributes:
      path: of the file.
      num_bytes: its size.
      modified_ns: when it was last modified, in ns.
    """

    path: Path
    num_bytes: int
    modified_ns: int


def read_rgb(encoded: bytes) -> Image.Image:
    """Decodes an image file wholly.

    PIL's global settings for truncated and for large images don't count, and PIL prints nothing.

    Args:
      encoded: the file's bytes.

    Returns:
      8-bit RGB.

    Raises:
      UnreadableImageError: it is damaged, too large or of an unknown kind.
    """
    if not encoded:
        raise UnreadableImageError("it is empty (0 bytes)")
    formats = pillow_settings.load_formats(FORMATS)
    try:
        with _strict_pillow, Image.open(io.BytesIO(encoded), formats=formats) as image:
            refusal = image_conversion.refusal(image, MAX_PIXELS)
            if refusal is not None:
                raise UnreadableImageError(refusal)
            return image_conversion.to_rgb(image)
    except UnreadableImageError:
        raise
    # Damaged bytes lead PIL's plugins to anything, OSError, KeyError, struct.error and more. All
    # of them mean the same here, and none may end the work on the other images.
    except Exception as error:
        raise UnreadableImageError(_reason(error, encoded)) from error


def knows_kind(encoded: bytes) -> bool:
    """Returns whether `read_rgb` reads files of this kind; the file may be damaged nevertheless."""
    formats = pillow_settings.load_formats(FORMATS)
    try:
        with _strict_pillow, Image.open(io.BytesIO(encoded), formats=formats) as image:
            return image_conversion.refusal(image, MAX_PIXELS) is None
    except Image.DecompressionBombError:
        return True
    except Exception:  # see `read_rgb`
        return False


def resize(encoded: bytes, size: int) -> np.ndarray:
    """Decodes an image file and resizes it as the release's `Resize((size, size))` does.

    Args:
      encoded: the file's bytes.
      size: pixels a side; the proportions are not kept.

    Returns:
      u8[size, size, 3], by PIL's bilinear filter.

    Raises:
      UnreadableImageError: it is damaged, too large or of an unknown kind.
    """
    return np.asarray(read_rgb(encoded).resize((size, size), Image.Resampling.BILINEAR))


def _reason(error: Exception, encoded: bytes) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS} pixels"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(encoded)
    if "truncated" in str(error).lower():
        return "it is truncated"
    text = "".join(letter if letter.isprintable() else " " for letter in str(error)).strip()
    return f"it is damaged ({text[:100] or type(error).__name__})"


def _unidentified(encoded: bytes) -> str:
    start = encoded[:16].ljust(16, b"\0")
    for name in pillow_settings.load_formats(FORMATS):
        accepts = Image.OPEN[name][1]
        if accepts is not None and accepts(start) is True:
            return f"it is a {name} file, damaged or of an unknown kind"
    return "its format is not known"


def find_folder(root: Path, names: Sequence[str]) -> Path:
    """Finds the image folder.

    Args:
      root: the folder that holds it.
      names: that it may have; a relative one must not lead out of `root`, not even by a link. An
        absolute path is taken as it is: the user has named it.

    Returns:
      The first one that is there.

    Raises:
      DataError: there is none, or it lies outside of `root`.
    """
    folders = [root / name for name in names]
    for name, folder in zip(names, folders, strict=True):
        if not os.path.isdir(folder):
            continue
        resolved = folder.resolve()
        if not os.path.isabs(name) and not resolved.is_relative_to(root.resolve()):
            raise DataError(
                f"The image folder {folder} leads to {resolved}, outside of {root}: give that as "
                "an absolute path if it is meant."
            )
        return folder
    tried = ", ".join(map(str, folders))
    raise DataError(f"There is no image folder; tried: {tried}.")


def locate(folder: Path, names: Sequence[Sequence[str]]) -> list[FoundImage | str]:
    """Looks for image files without opening them.

    Args:
      folder: of the images. Links within it are followed, those that lead out of it are not.
      names: for each image, where it may lie below `folder`, with forward slashes; the first that
        is there counts.

    Returns:
      For each image its file, or in a few words why there is none, like 'missing'.
    """
    root = folder.resolve()
    # Folders are few: resolving them, rather than every file, is what makes this fast.
    problem_of_folder = functools.cache(functools.partial(_problem_of_link, folder, root))
    return [_first_there(folder, candidates, problem_of_folder) for candidates in names]


def _first_there(
    folder: Path, candidates: Sequence[str], problem: Callable[[str], str | None]
) -> FoundImage | str:
    found: FoundImage | str = _MISSING
    for name in candidates:
        found = _look(folder, name, problem)
        if found != _MISSING:
            break
    return found


def _look(folder: Path, name: str, problem: Callable[[str], str | None]) -> FoundImage | str:
    if os.path.isabs(name) or ".." in name.split("/"):
        return "a name that leads out of the image folder"
    reason = problem(name.rpartition("/")[0])
    if reason is not None:
        return reason
    path = f"{folder}/{name}"
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            reason = problem(name)
            if reason is not None:
                return "a link to nothing" if reason == _MISSING else reason
            status = os.stat(path)
    except (OSError, ValueError) as error:
        return _problem_of_access(error)
    reason = _problem_of_kind(status.st_mode)
    return reason or FoundImage(Path(path), status.st_size, status.st_mtime_ns)


def _problem_of_link(folder: Path, root: Path, name: str) -> str | None:
    """Says what is wrong with a file or folder whose path may lead over links, or None."""
    try:
        inside = Path(os.path.realpath(folder / name, strict=True)).is_relative_to(root)
    except (OSError, ValueError) as error:
        return _problem_of_access(error)
    return None if inside else "a link out of the image folder"


def _problem_of_kind(mode: int) -> str | None:
    if stat.S_ISDIR(mode):
        return "a folder, not a file"
    return None if stat.S_ISREG(mode) else "not a regular file"


def _problem_of_access(error: OSError | ValueError) -> str:
    if not isinstance(error, OSError):
        return "not a file name"  # it has a zero byte or half a surrogate pair
    known = {
        errno.ENOENT: _MISSING,
        errno.ENOTDIR: _MISSING,
        errno.EACCES: "no permission",
        errno.EPERM: "no permission",
        errno.ELOOP: "a link in a circle",
    }
    return known.get(error.errno or 0, f"unreadable ({error.strerror})")


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


def read_bytes(path: Path) -> bytes:
    """Reads an image file whole.

    Raises:
      UnreadableImageError: it is missing, no regular file, too large or cannot be read.
    """
    try:
        status = os.stat(path)
        reason = _problem_of_kind(status.st_mode)
        if reason is None and status.st_size > MAX_FILE_BYTES:
            reason = f"it has {status.st_size} bytes, more than {MAX_FILE_BYTES}"
        if reason is not None:
            raise UnreadableImageError(reason)
        with open(path, "rb") as file:
            return file.read(MAX_FILE_BYTES)
    except UnreadableImageError:
        raise
    except (OSError, ValueError) as error:
        raise UnreadableImageError(_problem_of_access(error)) from error


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
