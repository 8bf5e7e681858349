"""Prepares a data set once, safely, and opens what was prepared.

The last thing written is a record of the preparation. A folder without one was left half-made and
is made anew; one process at a time makes it.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from input_pipeline import storage
from input_pipeline.datasets.base import BadImage, DatasetBuilder
from input_pipeline.errors import DataError
from input_pipeline.images.decoded import EncodedImage
from input_pipeline.language.texts import Texts

RECORD = "prepared.json"
TEXTS = "texts.json"


@dataclass(frozen=True)
class Prepared:
    """A data set that `builder` has prepared.

    Attributes:
      sizes: Split -> number of images.
      left_out: The images that could not be used.
    """

    builder: DatasetBuilder
    sizes: dict[str, int]
    left_out: list[BadImage]

    @property
    def folder(self) -> Path:
        """The folder that it lies in, `prepared_dir/NAME/FINGERPRINT`."""
        return self.builder.folder

    @property
    def fingerprint(self) -> str:
        """Names everything that it was made from."""
        return self.builder.fingerprint

    @property
    def num_images(self) -> int:
        """The number of images in all splits."""
        return sum(self.sizes.values())

    @cached_property
    def splits(self) -> dict[str, Sequence[Mapping[str, Any]]]:
        """Split -> its records.

        A record has `image` (the encoded file's bytes), `captions` (list of bytes), `filename`
        (bytes), `image_id` (int).
        """
        decoders = {"image": tfds.decode.SkipDecoding()}
        with storage.damage_named(self.folder), _quiet():
            return {
                split: self.builder.as_data_source(split, decoders=decoders) for split in self.sizes
            }

    @cached_property
    def _starts(self) -> list[int]:
        return list(accumulate(self.sizes.values(), initial=0))

    def encoded_image(self, row: int) -> EncodedImage:
        """Reads an image file; rows count through all splits in their order."""
        place = bisect.bisect_right(self._starts, row) - 1
        records = self.splits[list(self.sizes)[place]]
        with storage.damage_named(self.folder):
            record = records[row - self._starts[place]]
        return EncodedImage(record["filename"].decode(), record["image"])

    def texts(self) -> dict[str, Texts]:
        """Reads the texts of all splits."""
        with storage.damage_named(self.folder):
            fields = json.loads((self.folder / TEXTS).read_text("utf-8"))
            return {split: Texts(**fields[split]) for split in self.sizes}


def prepare(builder: DatasetBuilder, bad_images: str = "stop") -> Prepared:
    """Prepares a data set unless it is prepared already, and opens it.

    Images that can't be used are listed in a `DataError`, or left out if `bad_images` is 'skip'.
    """
    record = builder.folder / RECORD
    if not record.is_file():
        # Before anything is written: a data set that is refused leaves no trace.
        found = builder.bad_images()
        _refuse(builder, found, bad_images)
        with storage.lock(builder.folder.parent):
            if not record.is_file():  # another process may have been at it
                _make(builder, found)
    with storage.damage_named(builder.folder):
        if not builder.info.splits:  # another process has made them since we looked
            builder.info.read_from_directory(builder.data_path)
        made = json.loads(record.read_text("utf-8"))
        sizes = {split: int(made["sizes"][split]) for split in builder.sizes()}
        left_out = [BadImage(*fields) for fields in made["left_out"]]
    if left_out and bad_images == "stop":
        raise DataError(_sentence(builder, left_out))
    return Prepared(builder, sizes, left_out)


def _refuse(builder: DatasetBuilder, found: Sequence[BadImage], bad_images: str) -> None:
    if found and bad_images == "stop":
        raise DataError(_sentence(builder, found))
    for split, size in builder.sizes().items():
        of_split = [image for image in found if image.split == split]
        if len(of_split) == size:
            raise DataError(
                f"No image of the {split} split of '{builder.name}' can be used; "
                f"'{of_split[0].file_name}': {of_split[0].reason}."
            )


def _sentence(builder: DatasetBuilder, found: Sequence[BadImage]) -> str:
    """Names images that can't be used: the first in the sentence, the first few in a list below."""
    first, *others = found
    where = f"'{builder.name}' ({'; '.join(builder.sources())})"
    option = "data.bad_images='skip' leaves"
    advice = builder.naming_advice(found)
    if not others:
        sentence = f"The image '{first.file_name}' of {where} can't be used: {first.reason}"
        return f"{sentence}; {option} it out. {advice}".rstrip()
    lines = [f"{image.file_name}: {image.reason}" for image in found[:20]]
    more = f"and {len(found) - 20} more" if len(found) > 20 else ""
    listed = "".join(f"\n  {line}" for line in [*lines, more, advice] if line)
    return (
        f"{len(found)} images of {where} can't be used, '{first.file_name}' ({first.reason}) "
        f"and the others listed here; {option} them out:{listed}"
    )


def _make(builder: DatasetBuilder, left_out: Sequence[BadImage]) -> None:
    """Writes records, texts, and last of all the record of the preparation."""
    shutil.rmtree(builder.folder, ignore_errors=True)  # left by a process that was killed
    builder.left_out = frozenset(image.file_name for image in left_out)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        with _quiet():
            builder.download_and_prepare(download_config=config)
    except RuntimeError as error:  # what array_record raises when the disk is full
        reason = str(error).splitlines()[0]
        raise DataError(f"{builder.folder} can't be written: {reason}.") from error
    storage.flush_folder(Path(builder.data_path))
    sizes = {split: len(texts) for split, texts in builder.texts_written.items()}
    texts = {split: dataclasses.asdict(texts) for split, texts in builder.texts_written.items()}
    storage.write_text(builder.folder / TEXTS, json.dumps(texts, ensure_ascii=False))
    listed = [dataclasses.astuple(image) for image in left_out]
    made = {"data set": builder.name, "sizes": sizes, "left_out": listed}
    storage.write_text(builder.folder / RECORD, json.dumps(made, ensure_ascii=False))


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
