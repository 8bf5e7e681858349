"""Images as a user has them, files or arrays of any size, read only when they are encoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from input_pipeline.errors import DataError
from input_pipeline.images import reader
from input_pipeline.images.files import UnreadableImageError, read_bytes
from input_pipeline.images.fitting import AS_RELEASE, Fitting

ImageSource = str | Path | np.ndarray | Image.Image
"""A file, u8[height, width] or u8[height, width, 3], or an image that PIL has opened."""


class LazyImages:
    """Images that are read when rows of them are asked for, as `embed.Rows` are.

    Attributes:
      shape: (N, size, size, 3).
    """

    def __init__(self, sources: Sequence[ImageSource], size: int, fitting: Fitting = AS_RELEASE):
        """Takes images of any size, which become squares of `size` pixels a side by `fitting`."""
        self.shape = (len(sources), size, size, 3)
        self._sources = sources
        self._fitting = fitting
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1)  # PIL works outside of Python's lock

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Returns u8[R, size, size, 3]; an image that cannot be read is named by a `DataError`."""
        return np.stack(list(self._pool.map(self._pixels, rows.tolist())))

    def _pixels(self, row: int) -> np.ndarray:
        source = self._sources[row]
        try:
            return pixels(source, self.shape[1], self._fitting)
        except UnreadableImageError as error:
            name = source if isinstance(source, str | Path) else f"number {row} (from 0)"
            raise DataError(f"The image {name} cannot be read: {error}.") from error


def pixels(source: ImageSource, size: int, fitting: Fitting = AS_RELEASE) -> np.ndarray:
    """Reads an image as RGB and makes a square of it -> u8[size, size, 3].

    Raises:
      UnreadableImageError: The source is missing, damaged or of a kind that is not read.
    """
    if isinstance(source, str | Path):
        return reader.resize(read_bytes(Path(source)), size, fitting=fitting)
    image = source if isinstance(source, Image.Image) else _of_array(source)
    return reader.resize(image, size, fitting=fitting)


def _of_array(array: np.ndarray) -> Image.Image:
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not is_image or 0 in array.shape:
        raise UnreadableImageError(
            "an array must be uint8[height, width] or uint8[height, width, 3], not "
            f"{array.dtype}{list(array.shape)}"
        )
    return Image.fromarray(array)
