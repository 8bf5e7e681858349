"""NWPU-Captions: 28350 training and 3150 test images with five captions each.

Source: Cheng et al., "NWPU-Captions Dataset and MLCA-Net for Remote Sensing Image Captioning", TGRS
2022, with the caption files of the KAMCL release.
"""

from input_pipeline.datasets.release_layout import ReleaseLayout


class NwpuCaptions(ReleaseLayout):
    """Reads NWPU-Captions in the layout that `rsicd.Rsicd` describes.

    The release's text files name images without a folder (`airplane_001.jpg`), while NWPU-RESISC45
    comes with a folder a class: copy the images into one folder, or write the folder into the
    text files (`airplane/airplane_001.jpg`).

    Args:
      source_dir: the folder with the text files and the image folder.
      prepared_dir: where prepared data lies.
      images: the image folder's name within `source_dir`.
      blank_captions: whether an empty caption line is accepted.

    Raises:
      DataError: something in the folder is missing or malformed.
    """
