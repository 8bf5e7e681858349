"""NWPU-Captions (Cheng et al. 2022) as published, or in the layout of the KAMCL/GaLR release."""

from configs import base, variants


def get_config(variant: str = "resnet18"):
    """Returns the paper's NWPU-Captions training.

    Args:
      variant: one of `variants.VARIANTS`, as in `--config=configs/nwpu_captions.py:release`.

    Raises:
      ValueError: the variant is unknown.
    """
    config = base.get_config()
    config.num_epochs = 30
    config.num_folds = 1
    config.data.name = "nwpu_captions"
    config.data.dir = "data/nwpu_captions"
    config.data.options.images = ""  # folder below dir; "" = the usual names
    config.data.options.captions = ""  # file below dir; "" = the usual ones
    variants.apply(config, variant, "configs/nwpu_captions.py")
    return config
