"""A folder of images: its files are found, and read in threads ahead of who needs them."""

import collections
import dataclasses
import os
from collections import Counter
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from input_pipeline.images import files as image_files
from input_pipeline.images import reader
from input_pipeline.images.bands import BandChoice
from input_pipeline.images.files import IMAGE_SUFFIXES, UnreadableImageError
from input_pipeline.images.fitting import AS_RELEASE, Fitting, fit
from kamcl_jax.search.index import POINTER, FileState


@dataclasses.dataclass(frozen=True)
class FoundFiles:
    """What lies below a folder.

    Attributes:
      images: The images by name, in the order of the names.
      unreadable: A reason in a few words for each image or folder that cannot be opened; the name
        of a folder ends with a slash.
      others: How many files have each other suffix, in small letters.
      linked_folders: How many links to folders there are; none is entered.
    """

    images: dict[str, FileState]
    unreadable: dict[str, str]
    others: Counter[str]
    linked_folders: int

    def may_hold(self, name: str) -> bool:
        """Returns whether a file is in the folder, readable or not, as far as can be seen."""
        unseen = (folder for folder in self.unreadable if folder.endswith("/"))
        return name in self.images or name in self.unreadable or any(map(name.startswith, unseen))


def find_images(root: Path, without: Path) -> FoundFiles:
    """Looks for images in a folder and the folders in it, without opening them.

    Hidden files and folders are left out, and so are folders that hold an index: the pictures in
    them show what was found. Links to files are followed within the folder. Both paths are
    absolute; `without` is a folder that is not looked into.
    """
    found = FoundFiles({}, {}, Counter(), 0)
    names, linked_folders = [], 0

    def note_unseen(error: OSError) -> None:
        folder = Path(os.path.relpath(error.filename, root)).as_posix()
        found.unreadable[f"{folder}/"] = f"unreadable ({error.strerror})"

    for folder, folders, files in os.walk(root, onerror=note_unseen):
        if POINTER in files and any(name.startswith("generation_") for name in folders):
            folders.clear()
            continue
        paths = {name: os.path.join(folder, name) for name in folders if name[0] != "."}
        folders[:] = [name for name, path in paths.items() if path != str(without)]
        linked_folders += sum(os.path.islink(paths[name]) for name in folders)
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if suffix in IMAGE_SUFFIXES:
                names.append(name if below == "." else f"{below}/{name}")
            else:
                found.others[suffix] += 1
    names.sort()
    located = image_files.locate(root, [[name] for name in names])
    for name, file in zip(names, located, strict=True):
        if isinstance(file, str):
            found.unreadable[name] = file
        else:
            found.images[name] = FileState(name, file.num_bytes, file.modified_ns)
    return dataclasses.replace(found, linked_folders=linked_folders)


class ReadImage(NamedTuple):
    """An image file that has been read, or could not be.

    Attributes:
      state: The file.
      pixels: u8[size, size, 3], or the reason in a few words why there are none.
      original_size: The width and height in pixels before it was resized.
    """

    state: FileState
    pixels: np.ndarray | str
    original_size: tuple[int, int] = (0, 0)


def read_images(
    root: Path,
    states: Iterable[FileState],
    size: int,
    choice: BandChoice,
    ahead: int,
    fitting: Fitting = AS_RELEASE,
) -> Generator[ReadImage]:
    """Reads images in threads, makes squares of `size` pixels of them, and yields them in order.

    At most `ahead` images are read before they are asked for, which bounds the memory.
    """

    def read(state: FileState) -> ReadImage:
        (found,) = image_files.locate(root, [[state.name]])  # it may have changed meanwhile
        if isinstance(found, str):
            return ReadImage(state, found)
        try:
            image = reader.read_rgb(image_files.read_bytes(found.path), choice)
            return ReadImage(state, fit(image, size, fitting), image.size)
        except UnreadableImageError as error:
            return ReadImage(state, str(error))

    waiting: collections.deque[Future[ReadImage]] = collections.deque()
    remaining = iter(states)
    pool = ThreadPoolExecutor(os.cpu_count() or 1)  # PIL works outside of Python's lock
    try:
        waiting.extend(pool.submit(read, state) for state in islice(remaining, ahead))
        while waiting:
            image = waiting.popleft().result()
            waiting.extend(pool.submit(read, state) for state in islice(remaining, 1))
            yield image
    finally:
        pool.shutdown(cancel_futures=True)  # an interruption does not wait for all the others
