"""What a training or an evaluation sees: splits as arrays, and what the captions taught.

Arrays and texts stay on the disk: only what is asked for comes into memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from input_pipeline.language.concepts import Concepts
from input_pipeline.language.tokenizer import Tokenizer
from input_pipeline.language.vocabulary import Vocabulary


class SelectedRows:
    """Chosen rows i64[n] of a memory-mapped array `[N, ...]`, as an array `[n, ...]` of its own.

    Whatever is read is shared out to `threads` threads, each of which reads its rows.
    """

    def __init__(self, array: np.ndarray, rows: np.ndarray, threads: int = 1) -> None:
        self._array = array
        self._rows = rows
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "rows")
        self.shape = (len(rows), *array.shape[1:])
        self.dtype = array.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Reads rows; an index, a slice or an array of indices, as for a NumPy array."""
        rows = self._rows[index]
        chosen = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        places = chosen.reshape(-1, *self.shape[1:])
        shares = (np.array_split(whole, self._threads) for whole in (rows.ravel(), places))
        list(self._pool.map(self._copy, *shares))
        # What was read stays in the operating system's cache, but leaves the process's memory:
        # otherwise an epoch would end with all images resident.
        mapping = self._array.base
        if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)
        return chosen

    def _copy(self, rows: np.ndarray, places: np.ndarray) -> None:
        # NumPy copies outside of Python's lock; with "raise" it would copy everything twice.
        np.take(self._array, rows, axis=0, out=places, mode="clip")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # reading is copying
        return np.asarray(self[:], dtype)


class StoredTexts(Sequence[str]):
    """Texts in a file, one a line, with the start of each in a second file."""

    def __init__(self, path: Path) -> None:
        self._bytes = np.memmap(path, np.uint8, mode="r") if path.stat().st_size else None
        self._starts = np.load(_starts_path(path), mmap_mode="r")

    @staticmethod
    def write(path: Path, texts: Iterable[str]) -> None:
        """Writes texts without line breaks to a text file, and their starts beside it."""
        starts = [0]
        with path.open("wb") as file:
            for text in texts:
                starts.append(starts[-1] + file.write(text.encode() + b"\n"))
        np.save(_starts_path(path), np.array(starts, np.int64))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:
        """Reads a text, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        assert self._bytes is not None  # a text has its line break at least
        return self._bytes[self._starts[row] : self._starts[row + 1] - 1].tobytes().decode()


def _starts_path(path: Path) -> Path:
    return path.with_suffix(".starts.npy")


@dataclass(frozen=True)
class Examples:
    """One split: N images and M captions, all of it memory-mapped and read-only.

    Captions are tied to images by row, rows to images by id: never by position in a file.

    Attributes:
      images: u8[N, size, size, 3], RGB.
      image_ids: i64[N], unique over all splits.
      file_names: N names.
      captions: M texts.
      image_of_caption: i32[M], the row of the caption's image in `images`.
      tokens: i32[M, T], from the text encoder's tokeniser.
      lengths: i32[M], the number of tokens, at least 1.
      word_concepts: u8[M, C], 1 where the caption names the concept.
      image_concepts: f32[N, C], soft labels from the image's own captions (in training, perhaps
        from another one's, see `DataSettings.labels_by`). Those of validation and test images are
        there to measure by, and teach nothing.
    """

    images: SelectedRows
    image_ids: np.ndarray
    file_names: Sequence[str]
    captions: Sequence[str]
    image_of_caption: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray
    word_concepts: np.ndarray
    image_concepts: np.ndarray


@dataclass(frozen=True)
class RetrievalData:
    """All splits of a data set and what the captions taught about it.

    Attributes:
      train: The training split at `train_size` pixels, with soft labels.
      validation: The validation split at `image_size` pixels, as the test split.
      test: The test split.
      vocabulary: The words of the training captions.
      tokenizer: What the text encoder reads captions with.
      concepts: What captions and images are labelled with.
      training_captions: The SHA-256 of the names and captions of the training images, in order.
      fingerprint: Names the files and options that the data were prepared from.
      left_out: The name of each image that can't be used -> the reason, in a few words.
    """

    train: Examples
    validation: Examples
    test: Examples
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    concepts: Concepts
    training_captions: str
    fingerprint: str
    left_out: Mapping[str, str]

    @property
    def num_concepts(self) -> int:
        """The width of labels and word concepts."""
        return self.train.word_concepts.shape[1]
