"""Sydney-Captions (Qu et al. 2016) as published, or in the layout of the KAMCL/GaLR release."""

from configs import variants


def get_config(variant: str = "resnet18"):
    """Returns a Sydney-Captions training with the published validation split.

    Args:
      variant: One of `variants.VARIANTS`, as in `--config=configs/sydney_captions.py:resnet50`.

    Raises:
      ValueError: The variant is unknown.
    """
    config = variants.get_config("sydney_captions", variant, small_epochs=60)
    config.data.validation = "auto"
    return config
