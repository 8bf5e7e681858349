"""RSITMD (Yuan et al. 2022) as published, or in the layout of the KAMCL/GaLR release."""

from configs import variants


def get_config(variant: str = "resnet18"):
    """Returns the paper's RSITMD training.

    Args:
      variant: One of `variants.VARIANTS`, as in `--config=configs/rsitmd.py:release`.

    Raises:
      ValueError: The variant is unknown.
    """
    published = {"num_epochs": 30, "optimizer.decay_factor": 0.7}
    return variants.get_config("rsitmd", variant, small_epochs=15, published=published)
