"""The embedded data set of drawn scenes: a small KAMCL that a laptop trains in minutes.

`configs/synthetic.py:small_strong` is what `make demo` trains: the same model with the newer
recipe. `configs/synthetic.py:full` is the published model on such scenes: as heavy as on RSICD,
with nothing to download, for `--mode=benchmark`.
"""

import ml_collections

from configs import base
from configs.variants import SMALL, SMALL_STRONG, small_schedule

VARIANTS = ("small", "small_strong", "full")

DEMO = {
    **SMALL,
    **small_schedule(8),
    "batch_size": 50,
    "image_size": 64,
    "embedding_size": 128,
    "queue_length": 1000,
    "text_encoder.hidden_width": 128,
    "schedule.alignment_from_epoch": 4,
    "optimizer.decay_every_epochs": 6,
}
"""The narrow model is narrower still, so that the demo takes two minutes."""


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
    config = base.get_config()
    if variant == "full":  # the published sizes; a batch that a laptop takes
        config.batch_size = 8
        config.data.pad_concepts = True
        return _draw(config, "data/synthetic_full", size=224, train=200, validation=20, test=40)
    config.update_from_flattened_dict(DEMO | SMALL_STRONG if variant == "small_strong" else DEMO)
    return _draw(config, "data/synthetic", size=96, train=1000, validation=200, test=200)


def _draw(
    config: ml_collections.ConfigDict, folder: str, **options: int
) -> ml_collections.ConfigDict:
    config.data.name = "synthetic"
    config.data.dir = folder  # drawn there on first use
    config.data.validation = "published"
    config.data.options.update(options)
    config.data.options.seed = 0  # of the scenes, whatever the training's seed
    return config
