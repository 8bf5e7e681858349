"""RSICD (Lu et al. 2017) as published, or in the layout of the KAMCL/GaLR release."""

from configs import variants


def get_config(variant: str = "resnet18"):
    """Returns the paper's RSICD training.

    Args:
      variant: One of `variants.VARIANTS`, as in `--config=configs/rsicd.py:release`.

    Raises:
      ValueError: The variant is unknown.
    """
    return variants.get_config("rsicd", variant, small_epochs=6)
