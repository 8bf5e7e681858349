"""What the configs of real data share: where files are, the image network, the PyTorch release."""

import ml_collections

from configs import base

DEPTHS = {"resnet18": 18, "resnet34": 34, "resnet50": 50, "resnet101": 101}

RELEASE = {
    "image_encoder.depth": 18,
    "momentum_coverage": "release",
    "caption_padding": "release",
    "data.labels_by": "position",
    "data.pad_concepts": True,
    "data.vocabulary_from": "train_and_test",
    "evaluation.ties": "argsort",
}
"""Where the release departs from the paper, as far as settings reproduce it: docs/fidelity.md."""

VARIANTS = {name: {"image_encoder.depth": depth} for name, depth in DEPTHS.items()} | {
    "release": RELEASE
}


def get_config(name: str, variant: str) -> ml_collections.ConfigDict:
    """Returns the base config for a data set of caption files and an image folder.

    Args:
      name: of the data set, and of its config file.
      variant: a key of `VARIANTS`.

    Raises:
      ValueError: the variant is unknown.
    """
    if variant not in VARIANTS:
        known = ", ".join(VARIANTS)
        raise ValueError(f"configs/{name}.py has the variants {known}, not {variant!r}")
    config = base.get_config()
    config.data.name = name
    config.data.dir = f"data/{name}"
    config.data.options.images = ""  # folder below dir; "" = the usual names
    config.data.options.captions = ""  # file below dir; "" = the usual ones
    config.update_from_flattened_dict(VARIANTS[variant])
    return config
