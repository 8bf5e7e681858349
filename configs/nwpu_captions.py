"""NWPU-Captions (Cheng et al. 2022) as published, or in the layout of the KAMCL/GaLR release."""

from configs import variants


def get_config(variant: str = "resnet18"):
    """Returns the paper's NWPU-Captions training.

    Args:
      variant: One of `variants.VARIANTS`, as in `--config=configs/nwpu_captions.py:release`.

    Raises:
      ValueError: The variant is unknown.
    """
    published = {"num_epochs": 30}
    config = variants.get_config("nwpu_captions", variant, small_epochs=3, published=published)
    config.num_folds = 1
    return config
