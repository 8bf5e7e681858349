"""Finds the image files of a folder and reads their bytes; `reader` makes pixels of them."""

from __future__ import annotations

import errno
import functools
import glob
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from input_pipeline.errors import DataError

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded; a pixel takes 4 to 8 bytes of memory."""

MAX_FILE_BYTES = 2**30
"""Larger files are not read."""

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx"),
    )
)
"""The suffixes of files that are taken for images, in small letters."""

_MISSING = "missing"


class UnreadableImageError(ValueError):
    """An image can't be read; the text is a reason in a few words, like 'it is truncated'."""


def one_line(error: Exception) -> str:
    """Returns the first 100 printable letters of an error's text, or else its type."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(error)).strip()
    return text[:100] or type(error).__name__


@dataclass(frozen=True)
class FoundImage:
    """An image file that is there, its size and when it was last modified."""

    path: Path
    num_bytes: int
    modified_ns: int


def image_bar(label: str, total: int, images: Iterable[Any] | None = None) -> tqdm:
    """Returns a progress bar on stderr, which appears when the work takes more than a second.

    It goes through `images`, or counts what you `update` it with.
    """
    return tqdm(images, label, total, unit="image", mininterval=1.0, delay=1.0)


def find_folder(root: Path, names: Sequence[str]) -> Path:
    """Returns the first image folder that is there.

    Args:
      root: The data folder.
      names: The names that the image folder may have. A relative one must not lead out of `root`,
        not even by a link; an absolute path is taken as it is, because the user has named it.
    """
    folders = [root / name for name in names]
    for name, folder in zip(names, folders, strict=True):
        if not os.path.isdir(folder):
            continue
        resolved = folder.resolve()
        if not os.path.isabs(name) and not resolved.is_relative_to(root.resolve()):
            raise DataError(
                f"The image folder {folder} leads to {resolved}, outside of {root}. If you mean "
                f"that folder, write --config.data.options.images={resolved}."
            )
        return folder
    tried = ", ".join(map(str, folders))
    raise DataError(f"There is no image folder; tried: {tried}.")


def locate(folder: Path, names: Sequence[Sequence[str]]) -> list[FoundImage | str]:
    """Looks for image files without opening them.

    Args:
      folder: The image folder. Links within it are followed, links that lead out of it are not.
      names: For each image, where it may lie below `folder`, with forward slashes; the first that
        is there counts.

    Returns:
      For each image its file, or in a few words why there is none, like 'missing'.
    """
    root = folder.resolve()

    # Folders are few: resolving them, rather than every file, is what makes this fast.
    @functools.cache
    def leads_out(path: str) -> bool:
        return not Path(os.path.realpath(path)).is_relative_to(root)

    def first_there(candidates: Sequence[str]) -> FoundImage | str:
        looked_at = (_look(folder, name, leads_out) for name in candidates)
        return next((found for found in looked_at if found != _MISSING), _MISSING)

    return [first_there(candidates) for candidates in names]


def _look(folder: Path, name: str, leads_out: Callable[[str], bool]) -> FoundImage | str:
    if os.path.isabs(name) or ".." in name.split("/"):
        return "a name that leads out of the image folder"
    path = f"{folder}/{name}"
    try:
        if leads_out(os.path.dirname(path)) or (os.path.islink(path) and leads_out(path)):
            return "a link out of the image folder"
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = _reason(error)
        return "a link to nothing" if reason == _MISSING and os.path.islink(path) else reason
    if stat.S_ISREG(status.st_mode):
        return FoundImage(Path(path), status.st_size, status.st_mtime_ns)
    return "a folder, not a file" if stat.S_ISDIR(status.st_mode) else "not a regular file"


def _reason(error: OSError | ValueError) -> str:
    if not isinstance(error, OSError):
        return "not a file name"  # it has a zero byte or half a surrogate pair
    known = {
        errno.ENOENT: _MISSING,
        errno.ENOTDIR: _MISSING,
        errno.EISDIR: "a folder, not a file",
        errno.EACCES: "no permission",
        errno.EPERM: "no permission",
        errno.ELOOP: "a link in a circle",
    }
    return known.get(error.errno or 0, f"unreadable ({error.strerror})")


def naming_advice(folder: Path, missing: Sequence[str]) -> str:
    """Says how the names of missing images would have to be written for the images to be found.

    Returns:
      A sentence like "60 of the 60 missing images would be found without 'images/'.", or '' where
      neither leaving out folders nor adding a suffix helps.
    """
    helpful = next(_changes_that_help(folder, missing[:20]), None)
    if helpful is None:
        return ""
    prefix, suffix = helpful
    renamed = [[name.removeprefix(prefix) + suffix] for name in missing]
    count = sum(isinstance(found, FoundImage) for found in locate(folder, renamed))
    changes = [f"without '{prefix}'" if prefix else "", f"with '{suffix}'" if suffix else ""]
    how = " and ".join(filter(None, changes))
    return f"{count} of the {len(missing)} missing images would be found {how}."


def _changes_that_help(folder: Path, missing: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields (folders to leave out, suffix to add) with which an image would be found."""
    for name in missing:
        parts = name.split("/")
        for depth in range(len(parts)):
            below = folder.joinpath(*parts[depth:-1])
            for path in sorted(below.glob(f"{glob.escape(parts[-1])}*")):
                suffix = path.name.removeprefix(parts[-1])
                if path.is_file() and suffix == (path.suffix if suffix else ""):
                    yield "".join(f"{part}/" for part in parts[:depth]), suffix


def read_bytes(path: Path) -> bytes:
    """Reads an image file whole, or raises an `UnreadableImageError` that says why it can't."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its other end
            raise UnreadableImageError("not a regular file")
        if found.st_size > MAX_FILE_BYTES:
            raise UnreadableImageError(f"it has {found.st_size} bytes, more than {MAX_FILE_BYTES}")
        return Path(path).read_bytes()
    except UnreadableImageError:
        raise
    except (OSError, ValueError) as error:
        raise UnreadableImageError(_reason(error)) from error
