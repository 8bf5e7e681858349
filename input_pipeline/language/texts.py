"""What a data set says in words: the captions, names and ids of its images, without pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from input_pipeline.language.tokens import tokenize

SPLITS = ("train", "validation", "test")
"""The names of the splits, of data sets as published and of experiments."""


@dataclass(frozen=True)
class Texts:
    """The ids, the file names and the captions of N images, one caption or more for each."""

    image_ids: list[int]
    file_names: list[str]
    captions: list[list[str]]

    def __len__(self) -> int:
        return len(self.image_ids)

    def append(self, image_id: int, file_name: str, captions: Iterable[str]) -> None:
        """Adds an image, before anything has been derived from the texts."""
        self.image_ids.append(image_id)
        self.file_names.append(file_name)
        self.captions.append(list(captions))

    def of(self, rows: Iterable[int] | np.ndarray) -> Texts:
        """Returns the images at these rows, in their order."""
        chosen = [int(row) for row in rows]
        return Texts(
            [self.image_ids[row] for row in chosen],
            [self.file_names[row] for row in chosen],
            [self.captions[row] for row in chosen],
        )

    @cached_property
    def all_captions(self) -> list[str]:
        """The captions of all images, image by image."""
        return [caption for captions in self.captions for caption in captions]

    @cached_property
    def image_of_caption(self) -> np.ndarray:
        """The row of the image that each of `all_captions` belongs to, i32[M]."""
        counts = [len(captions) for captions in self.captions]
        return np.repeat(np.arange(len(self), dtype=np.int32), counts)

    @cached_property
    def tokens(self) -> list[list[str]]:
        """The tokens of each of `all_captions`; a caption may have none."""
        return [tokenize(caption) for caption in self.all_captions]

    @classmethod
    def joined(cls, parts: Iterable[Texts]) -> Texts:
        """Puts several parts one behind the other."""
        texts = cls([], [], [])
        for part in parts:
            texts.image_ids.extend(part.image_ids)
            texts.file_names.extend(part.file_names)
            texts.captions.extend(part.captions)
        return texts


def equal_text_ids(captions: Iterable[str]) -> np.ndarray:
    """Returns an id for each caption, the same one for captions of equal text.

    Two texts are equal if they are the same characters once each run of white space is a single
    space and there is none at either end. Case and punctuation count.

    Returns:
      i64[M], from 0 in the order in which the texts first appear.
    """
    ids: dict[str, int] = {}
    texts = (" ".join(caption.split()) for caption in captions)
    return np.array([ids.setdefault(text, len(ids)) for text in texts], np.int64)


def images_with_text(text_of_caption: np.ndarray, image_of_caption: np.ndarray) -> np.ndarray:
    """Returns how many images have a caption of each of T texts, i64[T], at least 1.

    Args:
      text_of_caption: int[M], from `equal_text_ids`.
      image_of_caption: int[M].
    """
    pairs = np.unique(np.stack([text_of_caption, image_of_caption]), axis=1)
    return np.bincount(pairs[0])


def num_shared_captions(text_of_caption: np.ndarray, image_of_caption: np.ndarray) -> int:
    """Returns how many captions have a text that a caption of another image has too."""
    images = images_with_text(text_of_caption, image_of_caption)
    return int(np.count_nonzero(images[text_of_caption] > 1))
