"""What a training or an evaluation sees: splits as arrays, and what the captions taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from input_pipeline.language.concepts import Concepts
from input_pipeline.language.vocabulary import Vocabulary
from input_pipeline.splits.stored_arrays import SelectedRows


@dataclass(frozen=True)
class Examples:
    """One split: N images and M captions, all of it memory-mapped and read-only.

    Captions are tied to images by row, rows to images by id: never by position in a file.

    Attributes:
      images: u8[N, size, size, 3], RGB.
      image_ids: i64[N], unique over all splits.
      file_names: N names.
      captions: M texts.
      image_of_caption: i32[M], the caption's row in `images`.
      tokens: i32[M, T], 0 is padding.
      lengths: i32[M], number of tokens, at least 1.
      word_concepts: u8[M, C], 1 where the caption names the concept.
      image_concepts: f32[N, C], soft labels; zeros for validation and test images.
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
      train: at `train_size` pixels, with soft labels.
      validation: at `image_size` pixels.
      test: at `image_size` pixels.
      vocabulary: of the text encoder.
      concepts: that captions and images are labelled with.
      training_captions: SHA-256 of the names and captions of the training images, in order.
      fingerprint: of the files and options that the data were prepared from.
    """

    train: Examples
    validation: Examples
    test: Examples
    vocabulary: Vocabulary
    concepts: Concepts
    training_captions: str
    fingerprint: str

    @property
    def num_concepts(self) -> int:
        """Returns the width of labels and word concepts."""
        return self.train.word_concepts.shape[1]
