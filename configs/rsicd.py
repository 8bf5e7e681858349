"""RSICD (Lu et al. 2017) as published, or in the layout of the KAMCL/GaLR release."""

from configs import base, variants


def get_config(variant: str = "resnet18"):
    """Returns the paper's RSICD training.

    Args:
      variant: one of `variants.VARIANTS`, as in `--config=configs/rsicd.py:release`.

    Raises:
      ValueError: the variant is unknown.
    """
    config = base.get_config()
    config.data.options.images = ""  # folder below dir; "" = the usual names
    config.data.options.captions = ""  # file below dir; "" = the usual ones
    variants.apply(config, variant, "configs/rsicd.py")
    return config
