"""What all data sets share: the features, quiet and atomic preparation, the fingerprint.

Library mirrored: tensorflow-datasets, with `array_record` files, so that TensorFlow is not needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

# Part of every fingerprint: raise it when the prepared files change their meaning.
CODE_VERSION = "1"


@dataclass(frozen=True)
class CaptionedImage:
    """One image with its captions, as it goes into the prepared data.

    Attributes:
      image: the encoded file, by path or as its bytes; it is copied through undecoded.
      file_name: as the data set names it; unique over all splits.
      image_id: unique over all splits.
      captions: five, in the release's data sets.
    """

    image: Path | bytes
    file_name: str
    image_id: int
    captions: Sequence[str]


def fingerprint(name: str, options: Mapping[str, object], inputs: Iterable[bytes]) -> str:
    """Names the outcome of a preparation by everything that decides it.

    Args:
      name: of the data set.
      options: JSON-able values.
      inputs: whatever else matters: caption files, image sizes and times, drawing code.

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
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First."}  # noqa: RUF012

    def __init__(
        self, prepared_dir: Path, options: Mapping[str, object], inputs: Iterable[bytes]
    ) -> None:
        self.fingerprint = fingerprint(self.name, options, inputs)
        folder = prepared_dir / self.name / self.fingerprint
        super().__init__(data_dir=folder, file_format="array_record")

    def splits(self) -> list[str]:
        """Returns the names of the splits, the training split first."""
        raise NotImplementedError

    def images_of(self, split: str) -> Iterator[CaptionedImage]:
        """Yields the images of a split in the order of their ids."""
        raise NotImplementedError

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
        for entry in self.images_of(split):
            image = io.BytesIO(entry.image) if isinstance(entry.image, bytes) else entry.image
            yield (
                entry.image_id,
                {
                    "image": image,
                    "captions": list(entry.captions),
                    "filename": entry.file_name,
                    "image_id": entry.image_id,
                },
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the library's banners, bars and logging off the terminal."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def prepare_builder(builder: CaptionedImages) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Prepares a data set unless it is prepared already, and opens it.

    The library writes into a folder of another name and renames it when all is there, so what is
    found under the final name is whole.

    Args:
      builder: of the data set.

    Returns:
      split -> a sequence with random access; `image` is the encoded file's bytes.
    """
    with _quiet():
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
        return {
            split: builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
            for split in builder.splits()
        }
