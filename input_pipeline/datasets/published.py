"""The base of the builders of published data sets, whichever of the caption files you have."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from input_pipeline.caption_files import Entry, karpathy_json, release_text
from input_pipeline.datasets.caption_folder import FolderBuilder, Listing
from input_pipeline.errors import DataError


class PublishedDataset(FolderBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Reads the publisher's JSON file, or the text files of the KAMCL, GaLR and AMFMN programs.

    The text files (`train_caps.txt`, `train_filename.txt`, ...) are read where a folder has both.
    """

    JSON_FILES: ClassVar[Sequence[str]] = ()
    """The names that the publisher's caption file may have."""

    BLANK_CAPTIONS: ClassVar[bool] = False
    """Whether an empty caption is accepted unless an option says otherwise."""

    @staticmethod
    def read_json(path: Path, root: Path | None, blank_captions: bool) -> list[Entry]:
        """Reads the publisher's caption file, as the readers in `caption_files` do."""
        return karpathy_json.read(path, root, blank_captions)

    @classmethod
    def list_images(
        cls,
        source_dir: Path,
        captions: str = "",
        images: str = "",
        blank_captions: bool | None = None,
    ) -> Listing:
        """Reads the caption files.

        Args:
          source_dir: The folder with the caption files.
          captions: The publisher's JSON file within `source_dir`, or an absolute path; '' takes the
            text files if they are there, else the JSON file under its usual name.
          images: The image folder, see the base class.
          blank_captions: Whether an empty caption is accepted; None for the data set's default.
        """
        del images  # only tables of your own may name images by whole paths
        blank = cls.BLANK_CAPTIONS if blank_captions is None else blank_captions
        if not captions and release_text.has_layout(source_dir):
            return Listing(source_dir, release_text.read(source_dir, blank))
        names = [captions] if captions else list(cls.JSON_FILES)
        file = next((source_dir / name for name in names if (source_dir / name).exists()), None)
        if file is None:
            files = "" if captions else "train_caps.txt with its companions, nor "
            raise DataError(
                f"There is no {files}{' or '.join(names)} in {source_dir}."
                if source_dir.is_dir()
                else f"There is no folder {source_dir}."
            )
        root = None if os.path.isabs(captions) else source_dir
        return Listing(file, cls.read_json(file, root, blank))


def size_mismatches(official: Mapping[str, int], sizes: Mapping[str, int]) -> list[str]:
    """Compares a data set's splits with the published ones.

    Images set aside for validation count as training images where one of the two has no
    validation split: the text files of the KAMCL release have them in one file.

    Args:
      official: Split -> number of images; empty where nothing is published.
      sizes: Split -> number of images.

    Returns:
      A sentence with both numbers for each difference.
    """
    if official and ("validation" in official) != ("validation" in sizes):
        official, sizes = (
            {"train": of["train"] + of.get("validation", 0), "test": of["test"]}
            for of in (official, sizes)
        )
    return [
        f"the {split} split has {sizes.get(split, 0)} images, the published one {count}"
        for split, count in official.items()
        if sizes.get(split, 0) != count
    ]
