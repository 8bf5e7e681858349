"""Decodes and resizes the images of a data set once, into a memory-mapped array for each size.

An array has a row for every image of the data set and a file beside it that says which rows have
been filled. Folds and splits choose rows, so no image is decoded twice for the same size; rows that
nobody has asked for take no space where the file system knows sparse files.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from input_pipeline import storage
from input_pipeline.errors import DataError
from input_pipeline.images.files import UnreadableImageError, image_bar
from input_pipeline.images.fitting import AS_RELEASE, Fitting
from input_pipeline.images.reader import resize

_T = TypeVar("_T")

SAVED_EVERY = 2048
"""After so many images an interrupted decoding need not start over."""


class EncodedImage(NamedTuple):
    """An image file: its name, for error messages, and its bytes."""

    file_name: str
    encoded: bytes


@dataclass(frozen=True)
class DecodedImages:
    """All images of a data set at one size; the arrays of all sizes lie in one folder.

    Attributes:
      folder: The folder of the arrays.
      size: The side of the images in pixels.
      num_images: The images of the data set.
      fitting: How images of any size become squares.
    """

    folder: Path
    size: int
    num_images: int
    fitting: Fitting = AS_RELEASE

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The array's shape, `[num_images, size, size, 3]`."""
        return (self.num_images, self.size, self.size, 3)

    @property
    def path(self) -> Path:
        """The array's file."""
        return self.folder / f"{self._name}.npy"

    @property
    def filled_path(self) -> Path:
        """The file that says which rows have been filled, bool[num_images]."""
        return self.folder / f"{self._name}.filled.npy"

    @property
    def _name(self) -> str:
        how = self.fitting
        return f"{self.size}px" + ("" if how == AS_RELEASE else f"-{how.resize}-{how.filter}")

    def open(self) -> np.ndarray:
        """Returns the array u8[num_images, size, size, 3], memory-mapped and read-only."""
        return np.load(self.path, mmap_mode="r")

    def filled(self) -> np.ndarray:
        """Returns which rows hold an image, bool[num_images]; none if a file is damaged."""
        nothing = np.zeros(self.num_images, bool)
        try:
            array, filled = self.open(), np.load(self.filled_path)
        except (OSError, ValueError, EOFError):
            return nothing
        whole = array.shape == self.shape and array.dtype == np.uint8
        return filled if whole and filled.shape == nothing.shape else nothing


def decode(
    images: DecodedImages,
    rows: np.ndarray,
    read: Callable[[int], EncodedImage],
    progress: str = "decoding",
) -> np.ndarray:
    """Fills the rows that are not filled yet and opens the array.

    A few images are in memory at a time. A row counts as filled when its pixels are safely on the
    disk, so whatever interrupts the work, it goes on from there.

    Args:
      images: Where the array is, or will be.
      rows: i64[n], the images that must be there.
      read: Returns a row's encoded image; one that can't be decoded is a `DataError`.
      progress: The label of the progress bar on stderr.

    Returns:
      u8[num_images, size, size, 3], memory-mapped and read-only; the other rows may be zeros.
    """
    if not images.filled()[rows].all():
        with storage.lock(images.folder):
            filled = images.filled()  # another process may have been at it
            missing = np.unique(rows[~filled[rows]])
            if not filled.any():
                _make_empty(images)
            with image_bar(progress, len(missing)) as bar:
                for some in _chunks(missing.tolist(), SAVED_EVERY):
                    resized = _resized((read(row) for row in some), images.size, images.fitting)
                    _write(images, some, resized, bar)
                    filled[some] = True
                    with storage.replaced(images.filled_path) as unfinished:
                        np.save(unfinished, filled)
    return images.open()


def _write(
    images: DecodedImages, rows: list[int], resized: Iterator[np.ndarray], bar: tqdm
) -> None:
    first_pixel = os.path.getsize(images.path) - math.prod(images.shape)
    # Not through a memory map: a full disk would kill the process there without a word.
    with images.path.open("r+b") as file:
        for row, pixels in zip(rows, resized, strict=True):
            file.seek(first_pixel + row * pixels.size)
            file.write(pixels.tobytes())
            bar.update()
        file.flush()
        os.fsync(file.fileno())


def _make_empty(images: DecodedImages) -> None:
    images.filled_path.unlink(missing_ok=True)
    with storage.replaced(images.path) as unfinished:
        header = {"descr": "|u1", "fortran_order": False, "shape": images.shape}
        np.lib.format.write_array_header_1_0(unfinished, header)
        unfinished.truncate(unfinished.tell() + math.prod(images.shape))


def _resized(encoded: Iterator[EncodedImage], size: int, fitting: Fitting) -> Iterator[np.ndarray]:
    threads = os.cpu_count() or 1  # PIL works outside of Python's lock

    def resized(image: EncodedImage) -> np.ndarray:
        try:
            return resize(image.encoded, size, fitting=fitting)
        except UnreadableImageError as error:
            raise DataError(f"The image {image.file_name} cannot be read: {error}.") from None

    with ThreadPoolExecutor(threads) as pool:
        for some in _chunks(encoded, 8 * threads):
            yield from pool.map(resized, some)


def _chunks(items: Iterable[_T], length: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, length)):
        yield chunk
