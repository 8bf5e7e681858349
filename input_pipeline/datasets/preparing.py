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
from input_pipeline.datasets.base import CaptionedImages, Problem
from input_pipeline.errors import DataError
from input_pipeline.images.decoded import EncodedImage
from input_pipeline.images.files import BAD_IMAGES
from input_pipeline.language.texts import Texts

RECORD = "prepared.json"
TEXTS = "texts.json"


@dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
      builder: that made it.
      sizes: split -> number of images.
      left_out: the images that could not be used.
    """

    builder: CaptionedImages
    sizes: dict[str, int]
    left_out: list[Problem]

    @property
    def folder(self) -> Path:
        """Where it lies, `prepared_dir/NAME/FINGERPRINT`."""
        return self.builder.folder

    @property
    def fingerprint(self) -> str:
        """Of everything that it was made from."""
        return self.builder.fingerprint

    @property
    def num_images(self) -> int:
        """Images of all splits."""
        return sum(self.sizes.values())

    @cached_property
    def splits(self) -> dict[str, Sequence[Mapping[str, Any]]]:
        """The records: split -> a sequence of dictionaries.

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


def prepare(builder: CaptionedImages, bad_images: str = "stop") -> Prepared:
    """Prepares a data set unless it is prepared already, and opens it.

    Args:
      builder: of the data set.
      bad_images: 'stop' refuses a data set with images that are missing or can't be read; 'skip'
        leaves them out, with their captions.

    Returns:
      The prepared data.

    Raises:
      DataError: images can't be used, and all of them are listed; or none of a split can.
    """
    if bad_images not in BAD_IMAGES:
        raise DataError(f"'bad_images' must be 'stop' or 'skip', not {bad_images!r}.")
    record = builder.folder / RECORD
    if not record.is_file():
        # Before anything is written: a data set that is refused leaves no trace.
        problems = builder.problems()
        _check(builder, problems, bad_images)
        with storage.lock(builder.folder.parent):
            if not record.is_file():  # another process may have been at it
                _make(builder, problems)
    with storage.damage_named(builder.folder):
        if not builder.info.splits:  # another process has made them since we looked
            builder.info.read_from_directory(builder.data_path)
        made = json.loads(record.read_text("utf-8"))
        sizes = {split: int(made["sizes"][split]) for split in builder.splits()}
        left_out = [Problem(*problem) for problem in made["left_out"]]
    if left_out and bad_images == "stop":
        raise DataError(_sentence(builder, left_out))
    return Prepared(builder, sizes, left_out)


def _check(builder: CaptionedImages, problems: Sequence[Problem], bad_images: str) -> None:
    if problems and bad_images == "stop":
        raise DataError(_sentence(builder, problems))
    for split in builder.splits():
        bad = [problem for problem in problems if problem.split == split]
        if len(bad) == builder.num_images(split):
            raise DataError(
                f"No image of the {split} split of '{builder.name}' can be used; "
                f"'{bad[0].file_name}': {bad[0].reason}."
            )


def _sentence(builder: CaptionedImages, problems: Sequence[Problem]) -> str:
    """Names all images that can't be used: the first in the sentence, several in a list below."""
    first, *others = problems
    where = f"'{builder.name}' ({'; '.join(builder.sources())})"
    option = "data.bad_images='skip' leaves"
    if not others:
        return (
            f"The image '{first.file_name}' of {where} can't be used: {first.reason}; {option} it "
            "out."
        )
    listed = "".join(f"\n  {problem.file_name}: {problem.reason}" for problem in problems)
    return (
        f"{len(problems)} images of {where} can't be used, '{first.file_name}' ({first.reason}) "
        f"and the others listed here; {option} them out:{listed}"
    )


def _make(builder: CaptionedImages, problems: Sequence[Problem]) -> None:
    """Writes records, texts, and last of all the record of the preparation."""
    shutil.rmtree(builder.folder, ignore_errors=True)  # left by a process that was killed
    builder.left_out = frozenset(problem.file_name for problem in problems)
    try:
        with _quiet():
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
    except RuntimeError as error:  # array_record's, of a full disk
        reason = str(error).splitlines()[0]
        raise DataError(f"{builder.folder} can't be written: {reason}.") from error
    storage.flush_folder(Path(builder.data_path))
    sizes = {split: len(builder.texts_written[split]) for split in builder.splits()}
    texts = {split: builder.texts_written[split].fields() for split in sizes}
    storage.write_text(builder.folder / TEXTS, json.dumps(texts, ensure_ascii=False))
    left_out = [list(dataclasses.astuple(problem)) for problem in problems]
    made = {"data set": builder.name, "sizes": sizes, "left_out": left_out}
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
