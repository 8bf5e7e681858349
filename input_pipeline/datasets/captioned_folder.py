"""Base of the builders that read caption files and a folder of images."""

from __future__ import annotations

import inspect
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from input_pipeline.caption_files import Entry
from input_pipeline.datasets.base import CaptionedImage, CaptionedImages, Problem
from input_pipeline.errors import DataError
from input_pipeline.images.files import FoundImage, find_folder, locate, naming_advice
from input_pipeline.images.reader import check_all
from input_pipeline.language.texts import Texts
from input_pipeline.splits.splitting import SPLITS


@dataclass(frozen=True)
class Listing:
    """What caption files say.

    Attributes:
      file: that was read, or the folder of several.
      entries: one an image; its place in the list is the image's id.
    """

    file: Path
    entries: list[Entry]

    @cached_property
    def splits(self) -> dict[str, list[int]]:
        """Split -> ids of its images, train first; a split without images is not there."""
        ids: dict[str, list[int]] = {split: [] for split in SPLITS}
        for image_id, entry in enumerate(self.entries):
            ids[entry.split].append(image_id)
        return {split: members for split, members in ids.items() if members}

    def texts(self, split: str) -> Texts:
        """Returns the captions of a split."""
        ids = self.splits[split]
        chosen = [self.entries[image_id] for image_id in ids]
        return Texts(
            ids, [entry.file_name for entry in chosen], [list(entry.captions) for entry in chosen]
        )


class CaptionedFolder(CaptionedImages, skip_registration=True):  # type: ignore[call-arg]
    """Reads the captions, finds the images, and keeps to the folder while doing so.

    Attributes:
      IMAGE_FOLDERS: names that the image folder may have.
    """

    IMAGE_FOLDERS: ClassVar[Sequence[str]] = ("images",)

    def __init__(
        self,
        *,
        source_dir: Path,
        prepared_dir: Path,
        images: str = "",
        **options: Any,
    ) -> None:
        """Reads the captions and finds the images.

        Args:
          source_dir: the folder with the caption files and the image folder.
          prepared_dir: where prepared data lies.
          images: the image folder's name within `source_dir`, or an absolute path; '' tries
            `IMAGE_FOLDERS`.
          **options: of `list_images`.

        Raises:
          DataError: a caption file is missing or malformed, or there is no image folder.
        """
        self._listing = self.list_images(source_dir, images=images, **options)
        self._folder = find_folder(source_dir, [images] if images else self.IMAGE_FOLDERS)
        candidates = [self.candidates(entry) for entry in self._listing.entries]
        self._found = locate(self._folder, candidates)
        # The options decide nothing but what is listed here.
        super().__init__(prepared_dir, {}, self._inputs(source_dir))

    def _inputs(self, source_dir: Path) -> Iterator[bytes]:
        # Below the data folder, which may be moved.
        yield os.path.relpath(self._folder, source_dir).encode()
        for entry, found in zip(self._listing.entries, self._found, strict=True):
            file = [found.num_bytes, found.modified_ns] if isinstance(found, FoundImage) else found
            yield json.dumps([entry.file_name, entry.split, entry.captions, file]).encode()

    @classmethod
    def list_images(cls, *source_dir: Any, **options: Any) -> Listing:
        """Reads the caption files.

        Args:
          *source_dir: the folder with the caption files.
          **options: of the data set's own; a subclass lists them.

        Returns:
          All images; those that are trained and tested with are there.

        Raises:
          DataError: a file is missing or malformed.
        """
        raise NotImplementedError

    @classmethod
    def option_names(cls) -> set[str]:
        """Returns the options of `list_images`."""
        return set(inspect.signature(cls.list_images).parameters) - {"source_dir"}

    @classmethod
    def read_texts(cls, source_dir: Path | None, images: str = "", **options: Any):
        """Reads the captions alone, see the base class; no image needs to be there."""
        assert source_dir is not None
        listing = cls.list_images(source_dir, images=images, **options)
        return {split: listing.texts(split) for split in listing.splits}

    def candidates(self, entry: Entry) -> list[str]:
        """Returns where an image's file may lie, below the image folder.

        Letters with marks can be written in two ways: archives from one system may hold the one,
        caption files the other.
        """
        in_folder = [f"{entry.folder}/{entry.file_name}"] if entry.folder else []
        names = [entry.file_name, *in_folder]
        if all(name.isascii() for name in names):
            return names
        forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in names]
        return list(dict.fromkeys([*names, *forms]))

    def advice(self, problems: Sequence[Problem]) -> str:
        """Says how missing images would be found under other names, or returns ''."""
        missing = [problem.file_name for problem in problems if problem.reason == "missing"]
        return naming_advice(self._folder, missing)

    def sources(self) -> list[str]:
        """Names the caption file and the image folder."""
        return [f"captions: {self._listing.file}", f"images: {self._folder}"]

    def splits(self) -> list[str]:
        """Returns the names of the splits."""
        return list(self._listing.splits)

    def num_images(self, split: str) -> int:
        """Returns the number of a split's images, those that are left out included."""
        return len(self._listing.splits[split])

    def images_of(self, split: str) -> Iterator[CaptionedImage]:
        """Yields the images of a split in the order of their ids, but for `left_out`."""
        for image_id in self._listing.splits[split]:
            entry, found = self._listing.entries[image_id], self._found[image_id]
            if entry.file_name not in self.left_out:
                assert isinstance(found, FoundImage)  # what is missing is left out
                captions = list(entry.captions)
                yield CaptionedImage(found.path, entry.file_name, image_id, captions)

    def problems(self) -> list[Problem]:
        """Reads every image and returns those that can't be used, in the order of the files."""
        paths = [found.path for found in self._found if isinstance(found, FoundImage)]
        reasons = iter(check_all(paths, "checking images"))
        problems = []
        for entry, found in zip(self._listing.entries, self._found, strict=True):
            reason = next(reasons) if isinstance(found, FoundImage) else found
            if reason is not None:
                problems.append(Problem(entry.file_name, reason, entry.split))
        return problems


def check_splits(listing: Listing) -> Listing:
    """Returns the listing if there are images to train and to test with.

    Raises:
      DataError: there are none, or the file does not say which are which.
    """
    if any(not entry.split for entry in listing.entries):
        raise DataError(f"{listing.file} does not say which images are for training and test.")
    for split in ("train", "test"):
        if split not in listing.splits:
            raise DataError(f"{listing.file} lists no image of the {split} split.")
    return listing
