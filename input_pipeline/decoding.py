"""Decodes and resizes the images of a split once, into memory-mapped arrays."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from input_pipeline.errors import DataError


@dataclass(frozen=True)
class Output:
    """One array to make.

    Attributes:
      path: of the `.npy` file.
      rows: i64[n], which images of the source go into it, ascending.
      size: pixels a side.
    """

    path: Path
    rows: np.ndarray
    size: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The array's shape, `[n, size, size, 3]`."""
        return (len(self.rows), self.size, self.size, 3)


def resize(encoded: bytes, size: int, file_name: str) -> np.ndarray:
    """Decodes an image file and resizes it, without keeping its proportions.

    Source: the release's `Resize((s, s))`, which is PIL's bilinear filter.

    Args:
      encoded: the file's bytes, of any format that PIL reads.
      size: pixels a side.
      file_name: for the error's sentence.

    Returns:
      u8[size, size, 3], RGB.

    Raises:
      DataError: the bytes are no image, or a broken one.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise DataError(f"The image '{file_name}' can't be read as an image.") from None


@contextlib.contextmanager
def _written_atomically(path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Gives an array to fill; the file gets its name only when the block has ended well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        array = np.lib.format.open_memmap(name, mode="w+", dtype=np.uint8, shape=shape)
        yield array
        array.flush()
        Path(name).chmod(0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _open(output: Output) -> np.ndarray | None:
    """Opens an array that was made before; None where there is none of that shape."""
    try:
        array = np.load(output.path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return array if array.shape == output.shape and array.dtype == np.uint8 else None


def decode(
    source: Sequence[Mapping[str, Any]], outputs: Sequence[Output], progress: str = "decoding"
) -> list[np.ndarray]:
    """Makes the arrays that are not there yet, in one pass over the source.

    Only one image is in memory at a time. A file appears under its final name when it is whole.

    Args:
      source: sequence of dictionaries with `image` (encoded bytes) and `filename` (bytes).
      outputs: the arrays to make; their rows may overlap.
      progress: the progress bar's label; the bar is on stderr.

    Returns:
      u8[n, size, size, 3] for each output, memory-mapped and read-only.

    Raises:
      DataError: an image can't be read; the sentence names it.
    """
    pending = [output for output in outputs if _open(output) is None]
    if pending:
        _decode_pending(source, pending, progress)
    arrays = [_open(output) for output in outputs]
    for output, array in zip(outputs, arrays, strict=True):
        if array is None:
            raise DataError(f"The file {output.path} was changed while it was being made.")
    return [array for array in arrays if array is not None]


def _decode_pending(
    source: Sequence[Mapping[str, Any]], pending: Sequence[Output], progress: str
) -> None:
    # source row -> where its pixels go
    places: dict[int, list[tuple[int, int]]] = {}
    for number, output in enumerate(pending):
        for position, row in enumerate(output.rows.tolist()):
            places.setdefault(row, []).append((number, position))
    with contextlib.ExitStack() as stack:
        arrays = [stack.enter_context(_written_atomically(o.path, o.shape)) for o in pending]
        for row in tqdm(sorted(places), desc=progress, unit="image", mininterval=1.0):
            record = source[row]
            for number, position in places[row]:
                file_name = record["filename"].decode()
                arrays[number][position] = resize(record["image"], pending[number].size, file_name)
