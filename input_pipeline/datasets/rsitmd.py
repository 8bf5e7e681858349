"""RSITMD: 4291 training and 452 test images with five captions each.

Source: Yuan et al., "Exploring a Fine-Grained Multiscale Method for Cross-Modal Remote Sensing
Image Retrieval", TGRS 2022, with the caption files of the KAMCL release.
"""

from __future__ import annotations

from pathlib import Path

from input_pipeline.datasets.release_layout import ReleaseLayout


class Rsitmd(ReleaseLayout):
    """Reads RSITMD in the layout that `rsicd.Rsicd` describes.

    Args:
      source_dir: the folder with the text files and the image folder.
      prepared_dir: where prepared data lies.
      images: the image folder's name within `source_dir`.
      blank_captions: whether an empty caption line is accepted; the released `train_caps.txt` has
        twenty.

    Raises:
      DataError: something in the folder is missing or malformed.
    """

    def __init__(
        self,
        *,
        source_dir: Path,
        prepared_dir: Path,
        images: str = "images",
        blank_captions: bool = True,
    ) -> None:
        super().__init__(
            source_dir=source_dir,
            prepared_dir=prepared_dir,
            images=images,
            blank_captions=blank_captions,
        )
