"""What a data set says in words: the captions, names and ids of its images, without pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from input_pipeline.language.tokens import tokenize


@dataclass(frozen=True)
class Texts:
    """The captions of N images.

    Attributes:
      image_ids: N ids.
      file_names: N names.
      captions: one or more an image.
    """

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

    def fields(self) -> dict[str, list]:
        """Returns the attributes by name, to be written as JSON; `Texts(**fields)` reads them."""
        return {
            "image_ids": self.image_ids,
            "file_names": self.file_names,
            "captions": self.captions,
        }
