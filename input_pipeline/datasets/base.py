"""What all data sets share: the features of a record, and the fingerprint of what it came from.

Library mirrored: tensorflow-datasets, with `array_record` files, so that TensorFlow is not needed.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from input_pipeline import storage
from input_pipeline.images.files import image_bar
from input_pipeline.language.texts import Texts

# Part of every fingerprint: raise it when the prepared files change their meaning.
CODE_VERSION = "2"


@dataclass(frozen=True)
class CaptionedImage:
    """One image with its captions, as it goes into the prepared data.

    Attributes:
      image: the encoded file, by path or as its bytes; it is copied through undecoded.
      file_name: as the data set names it; unique over all splits.
      image_id: unique over all splits.
      captions: one or more; five, in the published data sets.
    """

    image: Path | bytes
    file_name: str
    image_id: int
    captions: list[str]


@dataclass(frozen=True)
class Problem:
    """An image that can't be used.

    Attributes:
      file_name: as the data set names it.
      reason: in a few words: 'missing', 'it is truncated'.
      split: that the image is in.
    """

    file_name: str
    reason: str
    split: str


def fingerprint(name: str, options: Mapping[str, object], inputs: Iterable[bytes]) -> str:
    """Names the outcome of a preparation by everything that decides it.

    Args:
      name: of the data set.
      options: JSON-able values.
      inputs: whatever else matters: captions, names, sizes and times of images, drawing code.

    Returns:
      16 hexadecimal digits of a SHA-256.
    """
    digest = hashlib.sha256()
    head = json.dumps([CODE_VERSION, name, dict(options)], sort_keys=True).encode()
    for part in (head, *inputs):
        # The length keeps two parts from being taken for one.
        digest.update(f"{len(part)}:".encode() + part)
    return digest.hexdigest()[:16]


class CaptionedImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Base of the builders: a subclass says which splits there are and what is in them.

    Attributes:
      fingerprint: of this data set with these options and inputs; part of its folder's name, so
        that a changed input is prepared anew and never taken for the old one.
      folder: of everything that is prepared from it.
      left_out: names of images that `images_of` passes over.
      texts_written: split -> the texts of the records, once they have been generated.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First."}

    OFFICIAL_SIZES: ClassVar[Mapping[str, int]] = {}
    """Images of each split as published; empty where nothing is."""

    def __init__(
        self, prepared_dir: Path, options: Mapping[str, object], inputs: Iterable[bytes]
    ) -> None:
        self.fingerprint = fingerprint(self.name, options, inputs)
        self.folder = prepared_dir / self.name / self.fingerprint
        self.left_out: frozenset[str] = frozenset()
        self.texts_written: dict[str, Texts] = {}
        with storage.damage_named(self.folder):  # the library reads what is there already
            super().__init__(data_dir=self.folder, file_format="array_record")

    @classmethod
    def option_names(cls) -> set[str]:
        """Returns the names of the data set's own options."""
        raise NotImplementedError

    @classmethod
    def read_texts(cls, source_dir: Path | None, **options: Any) -> dict[str, Texts]:
        """Reads the captions alone: no image needs to be there.

        Args:
          source_dir: the folder with the data set's files.
          **options: as for the constructor.

        Returns:
          split -> its texts, in the order of `splits`.
        """
        raise NotImplementedError

    def splits(self) -> list[str]:
        """Returns the names of the splits: 'train', 'validation' if there is one, 'test'."""
        raise NotImplementedError

    def images_of(self, split: str) -> Iterator[CaptionedImage]:
        """Yields the images of a split in the order of their ids, but for `left_out`."""
        raise NotImplementedError

    def num_images(self, split: str) -> int:
        """Returns the number of a split's images, those that are left out included."""
        raise NotImplementedError

    def problems(self) -> list[Problem]:
        """Reads every image and returns those that can't be used."""
        return []

    def advice(self, problems: Sequence[Problem]) -> str:
        """Says in a sentence what may be wrong with the names of missing images, or returns ''."""
        del problems
        return ""

    def sources(self) -> list[str]:
        """Says what the data set is made from, for a report."""
        return []

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Images with captions for image-text retrieval.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "filename": tfds.features.Text(),
                    "image_id": np.int64,
                }
            ),
            # The order of the source files is kept: images are shuffled when they are trained on.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator[Any]]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in self.splits()}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        texts = self.texts_written[split] = Texts([], [], [])
        images = self.images_of(split)
        for entry in image_bar(f"preparing {split}", self.num_images(split), images):
            texts.append(entry.image_id, entry.file_name, entry.captions)
            image = io.BytesIO(entry.image) if isinstance(entry.image, bytes) else entry.image
            yield (
                entry.image_id,
                {
                    "image": image,
                    "captions": entry.captions,
                    "filename": entry.file_name,
                    "image_id": entry.image_id,
                },
            )
