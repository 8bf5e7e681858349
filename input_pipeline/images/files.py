"""Finds the image files of a folder, and reads their bytes; `image_reader` makes pixels of them."""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from input_pipeline.errors import DataError

BAD_IMAGES = ("stop", "skip")
"""What to do with a data set whose images can't all be read."""

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded; a pixel takes 4 to 8 bytes of memory."""

MAX_FILE_BYTES = 2**30
"""Larger files are not read."""

_MISSING = "missing"


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
