"""The embedded data set of drawn scenes: a small KAMCL that a laptop trains in minutes.

`configs/synthetic.py:full` is the published model on such scenes: as heavy as on RSICD, with
nothing to download, for `--mode=benchmark`.
"""

import ml_collections

from configs import base
from configs.variants import SMALL

VARIANTS = ("small", "full")


def get_config(variant: str = "small") -> ml_collections.ConfigDict:
    """Returns a training on drawn scenes.

    Args:
      variant: One of `VARIANTS`.

    Raises:
      ValueError: The variant is unknown.
    """
    if variant not in VARIANTS:
        known = ", ".join(VARIANTS)
        raise ValueError(f"configs/synthetic.py has the variants {known}, not {variant!r}")
    return _full() if variant == "full" else _small()


def _full() -> ml_collections.ConfigDict:
    """The published sizes, images as large as RSICD's, a batch that a laptop takes."""
    config = base.get_config()
    config.batch_size = 8
    _draw(config, "data/synthetic_full", size=224, train=200, validation=20, test=40)
    config.data.pad_concepts = True
    return config


def _draw(config: ml_collections.ConfigDict, folder: str, **options: int) -> None:
    config.data.name = "synthetic"
    config.data.dir = folder  # drawn there on first use
    config.data.validation = "published"
    config.data.options.update(options)
    config.data.options.seed = 0  # of the scenes, whatever the training's seed


def _small() -> ml_collections.ConfigDict:
    """The small model of the other configs too, on scenes of 96 pixels."""
    config = base.get_config()
    config.update_from_flattened_dict(SMALL)
    _draw(config, "data/synthetic", size=96, train=1000, validation=200, test=200)
    return config
