"""Data of your own: a folder of images and a file of captions."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from input_pipeline.caption_files import caption_table
from input_pipeline.datasets.captioned_folder import CaptionedFolder, Listing, check_splits
from input_pipeline.errors import DataError

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".json")


class CaptionFolder(CaptionedFolder):
    """Reads a CSV, TSV, JSONL or JSON file of captions, any number of them an image.

    What the files look like is described in `caption_files.caption_table`. Where they do not say
    which images are for what, a test split is drawn at random.
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
        """Reads the caption file.

        Args:
          source_dir: the folder with the caption file.
          captions: The caption file's name within `source_dir`, or an absolute path; '' takes the
            only one.
          images: The name of the image folder, see the constructor.
          blank_captions: whether an empty caption is accepted.
          test_fraction: of the images, for the test split of a file without splits; in (0, 1).
          split_seed: of that choice.

        Returns:
          All images; those that are trained and tested with are there.

        Raises:
          DataError: the file is missing or malformed, or a fraction leaves no split.
        """
        if not 0 < test_fraction < 1:
            raise DataError(f"'test_fraction' must be between 0 and 1, not {test_fraction}.")
        file = source_dir / captions if captions else _only_caption_file(source_dir)
        root = None if os.path.isabs(captions) else source_dir
        folders = [source_dir / name for name in ([images] if images else cls.IMAGE_FOLDERS)]
        image_folder = next(filter(Path.is_dir, folders), folders[0])
        entries = caption_table.read(file, root, blank_captions, image_folder)
        listing = Listing(file, entries)
        if not any(entry.split for entry in listing.entries):
            listing = _with_random_test_split(listing, test_fraction, split_seed)
        return check_splits(listing)


def _only_caption_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "no such file"
        raise DataError(
            f"The folder {folder} must have one caption file ({', '.join(EXTENSIONS)}) or the "
            f"option 'captions' name it; there is {names}."
        )
    return found[0]


def _with_random_test_split(listing: Listing, fraction: float, seed: int) -> Listing:
    count = len(listing.entries)
    num_test = round(fraction * count)
    if not 0 < num_test < count or seed < 0:
        raise DataError(
            f"A 'test_fraction' of {fraction} and a 'split_seed' of {seed} leave no split of the "
            f"{count} images of {listing.file}."
        )
    test = set(np.random.default_rng(seed).permutation(count)[:num_test].tolist())
    entries = [
        replace(entry, split="test" if image_id in test else "train")
        for image_id, entry in enumerate(listing.entries)
    ]
    return Listing(listing.file, entries)
