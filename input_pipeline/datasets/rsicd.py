"""RSICD: 10921 images of 224 pixels with five captions each.

Source: Lu et al., "Exploring Models and Data for Remote Sensing Image Caption Generation", TGRS
2017. Published split: 8734 / 1094 / 1093; the KAMCL release has the first two as one, 9828.
"""

from input_pipeline.datasets.published import PublishedDataset


class Rsicd(PublishedDataset):
    """Reads RSICD: `dataset_rsicd.json` and `RSICD_images/`, or the release's text files."""

    JSON_FILES = ("dataset_rsicd.json",)
    IMAGE_FOLDERS = ("images", "RSICD_images")
    OFFICIAL_SIZES = {"train": 8734, "validation": 1094, "test": 1093}  # noqa: RUF012
