"""The rows of an index, one for each image, in three files that only grow.

| file             | what is in it                                                              |
|------------------|----------------------------------------------------------------------------|
| `embeddings.f32` | little-endian f32[N, E], unit vectors                                      |
| `concepts.f16`   | little-endian f16[N, C], probabilities                                     |
| `files.jsonl`    | a line a row: `["a/b.tif", bytes, ns]`, as the file was when it was read   |

A row counts from the moment its line is whole; embeddings and concepts are on the disk by then.
"""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple, Self

import numpy as np

from input_pipeline.errors import DataError

FILES, EMBEDDINGS, CONCEPTS = "files.jsonl", "embeddings.f32", "concepts.f16"
COPIED_AT_ONCE = 2**14


class FileState(NamedTuple):
    """An image file as it was when it was read.

    Attributes:
      name: path below the folder of images, with forward slashes.
      num_bytes: its size.
      modified_ns: when it was last modified, in ns.
    """

    name: str
    num_bytes: int
    modified_ns: int


class IndexRows(NamedTuple):
    """What an index knows of N images.

    Attributes:
      files: N of them.
      embeddings: f32[N, E], mapped from the file, read-only.
      concepts: f16[N, C], likewise.
    """

    files: list[FileState]
    embeddings: np.ndarray
    concepts: np.ndarray


def read(folder: Path, embedding_width: int, num_concepts: int) -> IndexRows:
    """Opens the rows that are whole.

    Args:
      folder: of the three files.
      embedding_width: E.
      num_concepts: C.

    Raises:
      DataError: a file is missing or damaged.
    """
    files = _parse(folder / FILES, _whole_lines(folder / FILES))
    shapes = (len(files), embedding_width), (len(files), num_concepts)
    return IndexRows(
        files,
        _mapped(folder / EMBEDDINGS, np.dtype("<f4"), shapes[0]),
        _mapped(folder / CONCEPTS, np.dtype("<f2"), shapes[1]),
    )


def _whole_lines(path: Path) -> bytes:
    try:
        written = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return written[: written.rfind(b"\n") + 1]


def _parse(path: Path, lines: bytes) -> list[FileState]:
    try:  # one parse of all lines takes a third of the time of one for each
        states = json.loads(b"[" + b",".join(lines.splitlines()) + b"]")
        if all(map(_is_state, states)):
            return [FileState(*state) for state in states]
    except (ValueError, RecursionError):
        pass
    for number, line in enumerate(lines.splitlines(), 1):
        with contextlib.suppress(ValueError, RecursionError):
            if _is_state(json.loads(line)):
                continue
        raise DataError(f"{path} is damaged in line {number}: delete the index and make it anew.")
    raise DataError(f"{path} is damaged: delete the index and make it anew.")


def _is_state(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and isinstance(value[0], str)
        and all(type(number) is int for number in value[1:])
    )


def _mapped(path: Path, dtype: np.dtype, shape: tuple[int, int]) -> np.ndarray:
    try:
        num_bytes = path.stat().st_size
        if num_bytes < dtype.itemsize * shape[0] * shape[1]:
            raise DataError(
                f"{path} is damaged: it has {num_bytes} bytes, too few for {shape[0]} images; "
                "delete the index and make it anew."
            )
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, mode="r", shape=shape)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


class RowWriter:
    """Appends rows; used in a `with` statement.

    What an interrupted writer left beyond the last whole row is cut off.
    """

    def __init__(self, folder: Path, embedding_width: int, num_concepts: int):
        """Opens the three files, or makes them.

        Args:
          folder: of the files.
          embedding_width: E.
          num_concepts: C.
        """
        self._files = contextlib.ExitStack()
        names = (EMBEDDINGS, CONCEPTS, FILES)
        opened = [self._files.enter_context((folder / name).open("ab")) for name in names]
        self._embeddings, self._concepts, self._lines = opened
        rows = read(folder, embedding_width, num_concepts)
        self._embeddings.truncate(4 * rows.embeddings.size)
        self._concepts.truncate(2 * rows.concepts.size)
        self._lines.truncate(len(_whole_lines(folder / FILES)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files."""
        self._files.close()

    def append(
        self, files: Sequence[FileState], embeddings: np.ndarray, concepts: np.ndarray
    ) -> None:
        """Writes R rows to the disk; they are there when this returns.

        Args:
          files: R of them.
          embeddings: [R, E], stored as f32.
          concepts: [R, C], stored as f16.
        """
        _write(self._embeddings, embeddings.astype("<f4").tobytes())
        _write(self._concepts, concepts.astype("<f2").tobytes())
        _write(self._lines, b"".join(map(_line, files)))


def _line(state: FileState) -> bytes:
    return json.dumps(list(state)).encode() + b"\n"  # ASCII, also for names that are not UTF-8


def _write(file: IO[bytes], content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def copy(rows: IndexRows, kept: np.ndarray, folder: Path) -> None:
    """Writes some rows anew.

    Args:
      rows: to copy from.
      kept: i64[K], which of them, in ascending order.
      folder: for the three files, which are not there yet.
    """
    widths = rows.embeddings.shape[1], rows.concepts.shape[1]
    with RowWriter(folder, *widths) as writer:
        for start in range(0, len(kept), COPIED_AT_ONCE):
            some = kept[start : start + COPIED_AT_ONCE]
            files = [rows.files[row] for row in some]
            writer.append(files, rows.embeddings[some], rows.concepts[some])
