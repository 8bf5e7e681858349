"""Reads images in threads, ahead of the device that embeds them."""

import collections
import os
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from input_pipeline.images import files, reader
from input_pipeline.images.bands import BandChoice
from input_pipeline.images.files import UnreadableImageError
from kamcl_jax.search.index_rows import FileState


class ReadImage(NamedTuple):
    """An image file that has been read, or not.

    Attributes:
      state: of the file.
      pixels: u8[size, size, 3], or in a few words why there are none.
    """

    state: FileState
    pixels: np.ndarray | str


def read_ahead(
    root: Path, states: Iterable[FileState], size: int, choice: BandChoice, ahead: int
) -> Generator[ReadImage]:
    """Reads and resizes images in threads, and yields them in order.

    Args:
      root: folder of the images.
      states: of the files.
      size: pixels a side.
      choice: of bands.
      ahead: how many may be read before they are asked for; bounds the memory.
    """

    def read(state: FileState) -> ReadImage:
        (found,) = files.locate(root, [[state.name]])  # it may have changed meanwhile
        if isinstance(found, str):
            return ReadImage(state, found)
        try:
            encoded = files.read_bytes(found.path)
            return ReadImage(state, reader.resize(encoded, size, choice))
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
