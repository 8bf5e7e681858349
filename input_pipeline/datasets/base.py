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
      image: The encoded file, as a path or as bytes; it is copied without being decoded.
      file_name: The data set's name for it, unique over all splits.
      image_id: A number that is unique over all splits.
      captions: One or more; the published data sets have five.
    """

    image: Path | bytes
    file_name: str
    image_id: int
    captions: list[str]


@dataclass(frozen=True)
class BadImage:
    """An image of a split that can't be used, for a reason like 'missing' or 'it is truncated'."""

    file_name: str
    reason: str
    split: str


def fingerprint(name: str, options: Mapping[str, object], inputs: Iterable[bytes]) -> str:
    """Names the outcome of a preparation by everything that decides it."""
    digest = hashlib.sha256()
    head = json.dumps([CODE_VERSION, name, dict(options)], sort_keys=True).encode()
    for part in (head, *inputs):
        # The length keeps two parts from being taken for one.
        digest.update(f"{len(part)}:".encode() + part)
    return digest.hexdigest()[:16]


class DatasetBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The base of all builders: a subclass says which splits there are and what is in them.

    Attributes:
      fingerprint: Names the data set with these options and inputs. It is part of the folder's
        name, so a changed input is prepared anew and never taken for the old one.
      folder: Holds everything that is prepared from it.
      left_out: The names of images that `images_of` passes over.
      texts_written: Split -> the texts of the records, once they have been generated.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First."}

    OFFICIAL_SIZES: ClassVar[Mapping[str, int]] = {}
    """Split -> number of images as published; empty where nothing is."""

    def __init__(
        self, prepared_dir: Path, options: Mapping[str, object], inputs: Iterable[bytes]
    ) -> None:
        """Opens what is prepared, if it is.

        Args:
          prepared_dir: The folder for the prepared data of all data sets.
          options: Options that decide the outcome, as JSON can write them.
          inputs: Whatever else does: captions, names, sizes and times of images, drawing code.
        """
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
        """Returns split -> its texts, from the constructor's arguments; no image is needed."""
        raise NotImplementedError

    def sizes(self) -> dict[str, int]:
        """Returns split -> number of images, those left out included, in the order of `SPLITS`."""
        raise NotImplementedError

    def images_of(self, split: str) -> Iterator[CaptionedImage]:
        """Yields the images of a split in the order of their ids, but for `left_out`."""
        raise NotImplementedError

    def bad_images(self) -> list[BadImage]:
        """Reads every image and returns those that can't be used."""
        return []

    def naming_advice(self, bad: Sequence[BadImage]) -> str:
        """Says in a sentence how missing images would be found under other names, or returns ''."""
        del bad
        return ""

    def images_without_caption(self) -> list[str]:
        """Returns the names of image files that no caption belongs to, so nothing uses them."""
        return []

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
        return {split: self._generate_examples(split) for split in self.sizes()}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        texts = self.texts_written[split] = Texts([], [], [])
        bar = image_bar(f"preparing {split}", self.sizes()[split], self.images_of(split))
        for entry in bar:
            texts.append(entry.image_id, entry.file_name, entry.captions)
            record = {
                "image": io.BytesIO(entry.image) if isinstance(entry.image, bytes) else entry.image,
                "captions": entry.captions,
                "filename": entry.file_name,
                "image_id": entry.image_id,
            }
            yield entry.image_id, record
