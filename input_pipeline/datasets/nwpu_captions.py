"""NWPU-Captions: 31500 images of 45 classes, 256 pixels, with five captions each.

Source: Cheng et al., "NWPU-Captions Dataset and MLCA-Net for Remote Sensing Image Captioning", TGRS
2022. Published split: 25200 / 3150 / 3150; the KAMCL release has the first two as one, 28350.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from input_pipeline.caption_files import Entry, nwpu_json
from input_pipeline.datasets.published import PublishedDataset

_NUMBER = re.compile(r"_\d+$")


class NwpuCaptions(PublishedDataset):
    """Reads NWPU-Captions: `dataset_nwpu.json` and the images, or the release's text files.

    NWPU-RESISC45 comes with a folder a class (`airplane/airplane_001.jpg`), while the caption files
    name the images alone; they may also lie in one folder.
    """

    JSON_FILES = ("dataset_nwpu.json",)
    IMAGE_FOLDERS = ("images", "NWPU_images", "NWPU-RESISC45")
    OFFICIAL_SIZES = {"train": 25200, "validation": 3150, "test": 3150}  # noqa: RUF012

    @staticmethod
    def read_json(path: Path, root: Path | None, blank_captions: bool) -> list[Entry]:
        """Reads the publisher's caption file, which lists the images of each class."""
        return nwpu_json.read(path, root, blank_captions)

    def candidates(self, entry: Entry) -> list[str]:
        """Returns where an image's file may lie: by itself, or in the folder of its class."""
        scene_class = _NUMBER.sub("", PurePosixPath(entry.file_name).stem)
        return [*super().candidates(entry), f"{scene_class}/{entry.file_name}"]
