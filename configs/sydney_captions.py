"""Sydney-Captions (Qu et al. 2016) as published, or in the layout of the KAMCL/GaLR release."""

from configs import base, variants


def get_config(variant: str = "resnet18"):
    """Returns a Sydney-Captions training with the published validation split.

    Args:
      variant: one of `variants.VARIANTS`, as in `--config=configs/sydney_captions.py:resnet50`.

    Raises:
      ValueError: the variant is unknown.
    """
    config = base.get_config()
    config.data.name = "sydney_captions"
    config.data.dir = "data/sydney_captions"
    config.data.validation = "auto"
    config.data.options.images = ""  # folder below dir; "" = the usual names
    config.data.options.captions = ""  # file below dir; "" = the usual ones
    variants.apply(config, variant, "configs/sydney_captions.py")
    return config
