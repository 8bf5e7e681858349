"""Sydney-Captions: 613 images of 7 classes, 500 pixels, with five captions each.

Source: Qu et al., "Deep Semantic Understanding of High Resolution Remote Sensing Image", CITS
2016. Published split: 497 / 58 / 58.
"""

from input_pipeline.datasets.published import PublishedDataset


class SydneyCaptions(PublishedDataset):
    """Reads Sydney-Captions: `dataset.json` and `imgs/`, or text files like the KAMCL release's."""

    JSON_FILES = ("dataset.json", "dataset_sydney.json", "dataset_Sydney.json")
    IMAGE_FOLDERS = ("images", "imgs", "Sydney_images")
    OFFICIAL_SIZES = {"train": 497, "validation": 58, "test": 58}  # noqa: RUF012
