"""RSICD: 9828 training and 1093 test images with five captions each.

Source: Lu et al., "Exploring Models and Data for Remote Sensing Image Caption Generation", TGRS
2017, with the caption files of the KAMCL release.
"""

from input_pipeline.datasets.release_layout import ReleaseLayout


class Rsicd(ReleaseLayout):
    """Reads RSICD, or any data of your own in the same layout.

    The folder holds `train_caps.txt`, `train_filename.txt`, `test_caps.txt`, `test_filename.txt`
    and the image folder.

    Args:
      source_dir: that folder.
      prepared_dir: where prepared data lies.
      images: the image folder's name within `source_dir`.
      blank_captions: whether an empty caption line is accepted.

    Raises:
      DataError: something in the folder is missing or malformed.
    """
