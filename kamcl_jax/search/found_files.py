"""Finds the image files below a folder."""

import dataclasses
import os
from collections import Counter
from pathlib import Path

from input_pipeline.images import files as image_files
from kamcl_jax.search.index import POINTER
from kamcl_jax.search.index_rows import FileState

_COMMON = (".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")
_OTHERS = (".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx")

SUFFIXES = frozenset((*_COMMON, *_OTHERS))
"""Of the files that are taken for images, in small letters."""


@dataclasses.dataclass(frozen=True)
class FoundFiles:
    """What lies below a folder.

    Attributes:
      images: by name, in the order of names.
      unreadable: names of images that cannot be opened, with a reason in a few words.
      others: how many files have another suffix, by suffix in small letters.
      linked_folders: how many links to folders there are; none is entered.
    """

    images: dict[str, FileState]
    unreadable: dict[str, str]
    others: Counter[str]
    linked_folders: int


def find(root: Path, without: Path) -> FoundFiles:
    """Looks for images in a folder and the folders in it, without opening them.

    Hidden files and folders are left out, and so are folders that hold an index: the pictures in
    them are of what has been found. Links to files are followed within the folder.

    Args:
      root: the folder, absolute.
      without: a folder, absolute, that is not looked into.
    """
    names, others, linked_folders = [], Counter[str](), 0
    unreadable: dict[str, str] = {}

    def note(error: OSError) -> None:
        folder = os.path.relpath(error.filename, root)
        unreadable[Path(folder).as_posix() + "/"] = f"unreadable ({error.strerror})"

    for folder, folders, files in os.walk(root, onerror=note):
        if POINTER in files and any(name.startswith("generation_") for name in folders):
            folders.clear()
            continue
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.join(folder, name) != str(without)
        ]
        linked_folders += sum(os.path.islink(os.path.join(folder, name)) for name in folders)
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if suffix in SUFFIXES:
                names.append(name if below == "." else f"{below}/{name}")
            else:
                others[suffix] += 1
    images = {}
    names.sort()
    located = image_files.locate(root, [[name] for name in names])
    for name, found in zip(names, located, strict=True):
        if isinstance(found, str):
            unreadable[name] = found
        else:
            images[name] = FileState(name, found.num_bytes, found.modified_ns)
    return FoundFiles(images, unreadable, others, linked_folders)
