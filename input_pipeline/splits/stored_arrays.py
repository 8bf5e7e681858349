"""Arrays and texts that stay on the disk: only what is asked for comes into memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np


class SelectedRows:
    """Chosen rows of a memory-mapped array, as if they were an array of their own.

    Attributes:
      shape: of that array, `[n, ...]`.
      dtype: of its elements.
    """

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        """Takes rows of an array.

        Args:
          array: of any shape `[N, ...]`; it is not copied.
          rows: i64[n], rows of the array.
        """
        self._array = array
        self._rows = rows
        self.shape = (len(rows), *array.shape[1:])
        self.dtype = array.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Reads rows; an index, a slice or an array of indices, as for a NumPy array."""
        chosen = self._array[self._rows[index]]
        _forget(self._array)
        return chosen

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Reads all rows into memory."""
        del copy  # reading is copying
        return np.asarray(self._array[self._rows], dtype)


def _forget(array: np.ndarray) -> None:
    """Takes what was read of a mapped file out of the process's memory.

    It stays in the operating system's cache. Without this, an epoch ends with all images resident.
    """
    mapping = array.base
    if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


class StoredTexts(Sequence[str]):
    """Texts in a file, one a line, with the place of each in a second file."""

    def __init__(self, path: Path) -> None:
        """Opens what `write` wrote.

        Args:
          path: of the text file.

        Raises:
          ValueError: the two files do not belong together.
        """
        self._bytes = np.memmap(path, np.uint8, mode="r") if path.stat().st_size else None
        self._starts = np.load(_starts_path(path), mmap_mode="r")
        if self._starts[-1] != path.stat().st_size:
            raise ValueError(f"{path} has not the length that {_starts_path(path).name} tells")

    @staticmethod
    def write(path: Path, texts: Iterable[str]) -> None:
        """Writes texts without line breaks.

        Args:
          path: of the text file; the places go beside it.
          texts: in order.
        """
        starts = [0]
        with path.open("wb") as file:
            for text in texts:
                starts.append(starts[-1] + file.write(text.encode() + b"\n"))
        np.save(_starts_path(path), np.array(starts, np.int64))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Reads a text, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        assert self._bytes is not None  # a text has its line break at least
        return self._bytes[self._starts[row] : self._starts[row + 1] - 1].tobytes().decode()


def _starts_path(path: Path) -> Path:
    return path.with_suffix(".starts.npy")


def open_array(path: Path) -> np.ndarray:
    """Opens a `.npy` file, memory-mapped and read-only; an empty array can't be mapped."""
    array = np.load(path, mmap_mode="r") if _has_elements(path) else np.load(path)
    array.flags.writeable = False
    return array


def _has_elements(path: Path) -> bool:
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
    return bool(np.prod(shape))
