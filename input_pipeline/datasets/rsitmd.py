"""RSITMD: 4743 images of 256 pixels with five fine-grained captions each.

Source: Yuan et al., "Exploring a Fine-Grained Multiscale Method for Cross-Modal Remote Sensing
Image Retrieval", TGRS 2022. Published split: 4291 / 452.
"""

from input_pipeline.datasets.published import PublishedDataset


class Rsitmd(PublishedDataset):
    """Reads RSITMD: `dataset_RSITMD.json` and `images/`, or the release's text files.

    Empty captions are accepted by default: twenty lines of the release's training captions are.
    """

    JSON_FILES = ("dataset_RSITMD.json", "dataset_rsitmd.json")
    IMAGE_FOLDERS = ("images", "RSITMD_images")
    BLANK_CAPTIONS = True
    OFFICIAL_SIZES = {"train": 4291, "test": 452}  # noqa: RUF012
