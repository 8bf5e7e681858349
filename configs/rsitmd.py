"""RSITMD (Yuan et al. 2022) as published, or in the layout of the KAMCL/GaLR release."""

from configs import base, variants


def get_config(variant: str = "resnet18"):
    """Returns the paper's RSITMD training.

    Args:
      variant: one of `variants.VARIANTS`, as in `--config=configs/rsitmd.py:release`.

    Raises:
      ValueError: the variant is unknown.
    """
    config = base.get_config()
    config.num_epochs = 30
    config.optimizer.decay_factor = 0.7
    config.data.name = "rsitmd"
    config.data.dir = "data/rsitmd"
    config.data.options.images = ""  # folder below dir; "" = the usual names
    config.data.options.captions = ""  # file below dir; "" = the usual ones
    variants.apply(config, variant, "configs/rsitmd.py")
    return config
