"""UCM-Captions: 2100 images of 21 classes, 256 pixels, with five captions each.

Source: Qu et al., "Deep Semantic Understanding of High Resolution Remote Sensing Image", CITS
2016. Published split: 1680 / 210 / 210.
"""

from input_pipeline.datasets.published import PublishedDataset


class UcmCaptions(PublishedDataset):
    """Reads UCM-Captions: `dataset.json` and `imgs/`, or text files like the KAMCL release's."""

    JSON_FILES = ("dataset.json", "dataset_ucm.json", "dataset_UCM.json")
    IMAGE_FOLDERS = ("images", "imgs", "UCM_images")
    OFFICIAL_SIZES = {"train": 1680, "validation": 210, "test": 210}  # noqa: RUF012
