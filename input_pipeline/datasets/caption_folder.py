"""A folder of images with caption files: the base of such builders, and data of your own."""

from __future__ import annotations

import inspect
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from input_pipeline.caption_files import Entry, caption_table
from input_pipeline.datasets.base import BadImage, CaptionedImage, DatasetBuilder
from input_pipeline.errors import DataError
from input_pipeline.images import files
from input_pipeline.images.files import FoundImage
from input_pipeline.images.reader import check_all
from input_pipeline.language.texts import SPLITS, Texts


@dataclass(frozen=True)
class Listing:
    """What caption files say.

    Attributes:
      file: The file that was read, or the folder of several.
      entries: One an image; its place in the list is the image's id.
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

    def texts(self) -> dict[str, Texts]:
        """Returns split -> its texts."""
        whole = Texts([], [], [])
        for image_id, entry in enumerate(self.entries):
            whole.append(image_id, entry.file_name, entry.captions)
        return {split: whole.of(ids) for split, ids in self.splits.items()}


class FolderBuilder(DatasetBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Reads the captions and finds the images, all of them in one folder.

    Every data set of this kind has the options `images`, `captions` and `blank_captions`. The first
    is the image folder's name within the data folder, or an absolute path; '' tries
    `IMAGE_FOLDERS`.
    """

    IMAGE_FOLDERS: ClassVar[Sequence[str]] = ("images",)
    """The names that the image folder may have."""

    def __init__(
        self, *, source_dir: Path, prepared_dir: Path, images: str = "", **options: Any
    ) -> None:
        self._listing = self._checked_listing(source_dir, images=images, **options)
        self._folder = files.find_folder(source_dir, [images] if images else self.IMAGE_FOLDERS)
        candidates = [self.candidates(entry) for entry in self._listing.entries]
        self._found = files.locate(self._folder, candidates)
        # The options decide nothing but what is listed here.
        super().__init__(prepared_dir, {}, self._inputs(source_dir))

    def _inputs(self, source_dir: Path) -> Iterator[bytes]:
        # Relative to the data folder, which may be moved.
        yield os.path.relpath(self._folder, source_dir).encode()
        for entry, found in zip(self._listing.entries, self._found, strict=True):
            file = [found.num_bytes, found.modified_ns] if isinstance(found, FoundImage) else found
            yield json.dumps([entry.file_name, entry.split, entry.captions, file]).encode()

    @classmethod
    def list_images(cls, *source_dir: Any, **options: Any) -> Listing:
        """Reads the caption files; a subclass says which, and lists its own options."""
        raise NotImplementedError

    @classmethod
    def _checked_listing(cls, source_dir: Path, **options: Any) -> Listing:
        """Returns the listing, with images to train and to test with."""
        listing = cls.list_images(source_dir, **options)
        if any(not entry.split for entry in listing.entries):
            raise DataError(f"{listing.file} does not say which images are for training and test.")
        for split in ("train", "test"):
            if split not in listing.splits:
                raise DataError(f"{listing.file} lists no image of the {split} split.")
        return listing

    @classmethod
    def option_names(cls) -> set[str]:
        """Returns the options of `list_images`."""
        return set(inspect.signature(cls.list_images).parameters) - {"source_dir"}

    @classmethod
    def read_texts(cls, source_dir: Path | None, **options: Any) -> dict[str, Texts]:
        """Reads the captions alone, see the base class."""
        assert source_dir is not None
        return cls._checked_listing(source_dir, **options).texts()

    def candidates(self, entry: Entry) -> list[str]:
        """Returns where an image's file may lie below the image folder.

        Letters with marks can be written in two ways: archives from one system may hold the one,
        caption files the other.
        """
        in_folder = [f"{entry.folder}/{entry.file_name}"] if entry.folder else []
        names = [entry.file_name, *in_folder]
        forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in names]
        return list(dict.fromkeys([*names, *forms]))

    def sources(self) -> list[str]:
        """Names the caption file and the image folder."""
        return [f"captions: {self._listing.file}", f"images: {self._folder}"]

    def sizes(self) -> dict[str, int]:
        """Returns split -> number of images, those that are left out included."""
        return {split: len(ids) for split, ids in self._listing.splits.items()}

    def images_of(self, split: str) -> Iterator[CaptionedImage]:
        """Yields the images of a split in the order of their ids, but for `left_out`."""
        for image_id in self._listing.splits[split]:
            entry, found = self._listing.entries[image_id], self._found[image_id]
            if entry.file_name not in self.left_out:
                assert isinstance(found, FoundImage)  # what is missing is left out
                captions = list(entry.captions)
                yield CaptionedImage(found.path, entry.file_name, image_id, captions)

    def bad_images(self) -> list[BadImage]:
        """Reads every image and returns those that can't be used, in the order of the files."""
        paths = [found.path for found in self._found if isinstance(found, FoundImage)]
        checked = iter(check_all(paths, "checking images"))
        reasons = [next(checked) if isinstance(f, FoundImage) else f for f in self._found]
        return [
            BadImage(entry.file_name, reason, entry.split)
            for entry, reason in zip(self._listing.entries, reasons, strict=True)
            if reason is not None
        ]

    def naming_advice(self, bad: Sequence[BadImage]) -> str:
        """Says how missing images would be found under other names, or returns ''."""
        missing = [image.file_name for image in bad if image.reason == "missing"]
        return files.naming_advice(self._folder, missing)

    def images_without_caption(self) -> list[str]:
        """Returns the names of the image files that no caption belongs to."""
        captioned = {found.path for found in self._found if isinstance(found, FoundImage)}
        prepared_dir = self.folder.parents[1]  # it may lie among the images, with figures in it
        return sorted(
            path.relative_to(self._folder).as_posix()
            for path in self._folder.rglob("[!.]*")
            if path.suffix.lower() in files.IMAGE_SUFFIXES
            and path not in captioned
            and prepared_dir not in path.parents
        )


class CaptionFolder(FolderBuilder):
    """Data of your own: a CSV, TSV, JSONL or JSON file with any number of captions an image.

    `caption_files.caption_table` describes the files. Where they do not say which images are for
    what, a test split is drawn at random.
    """

    IMAGE_FOLDERS = ("images", ".")  # the folder itself, where there is no other

    @classmethod
    def list_images(
        cls,
        source_dir: Path,
        captions: str = "",
        images: str = "",
        blank_captions: bool = False,
        test_fraction: float = 0.2,
        split_seed: int = 0,
    ) -> Listing:
        """Reads the caption file; the first options are those of the base class.

        Args:
          source_dir: The folder with the caption file.
          captions: The caption file's name within `source_dir`, or an absolute path; '' takes the
            only one.
          images: The image folder.
          blank_captions: Whether an empty caption is accepted.
          test_fraction: The share of the images in the test split of a file without splits, in
            (0, 1).
          split_seed: Another seed draws another test split.
        """
        file = source_dir / captions if captions else _only_caption_file(source_dir)
        root = None if os.path.isabs(captions) else source_dir
        folders = [source_dir / name for name in ([images] if images else cls.IMAGE_FOLDERS)]
        image_folder = next(filter(Path.is_dir, folders), folders[0])
        entries = caption_table.read(file, root, blank_captions, image_folder)
        if any(entry.split for entry in entries):
            return Listing(file, entries)
        return Listing(file, _with_random_test_split(entries, file, test_fraction, split_seed))


def _only_caption_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.")
    suffixes = (".csv", ".tsv", ".jsonl", ".json")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "no such file"
        raise DataError(
            f"The folder {folder} must have one caption file ({', '.join(suffixes)}) or "
            f"the option 'captions' must name it; there is {names}."
        )
    return found[0]


def _with_random_test_split(
    entries: list[Entry], file: Path, fraction: float, seed: int
) -> list[Entry]:
    count = len(entries)
    num_test = round(fraction * count)
    if not 0 < num_test < count or seed < 0:
        raise DataError(
            f"A 'test_fraction' of {fraction} and a 'split_seed' of {seed} leave no split of the "
            f"{count} images of {file}."
        )
    test = set(np.random.default_rng(seed).permutation(count)[:num_test].tolist())
    return [
        replace(entry, split="test" if image_id in test else "train")
        for image_id, entry in enumerate(entries)
    ]
