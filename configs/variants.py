"""The variants that the published data sets share: the image network, or the PyTorch release."""

import ml_collections

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


def apply(config: ml_collections.ConfigDict, variant: str, file: str) -> None:
    """Changes a config to a variant.

    Args:
      config: of a data set, changed in place.
      variant: a key of `VARIANTS`.
      file: of the config, for the error's sentence.

    Raises:
      ValueError: the variant is unknown.
    """
    if variant not in VARIANTS:
        raise ValueError(f"{file} has the variants {', '.join(VARIANTS)}, not {variant!r}")
    config.update_from_flattened_dict(VARIANTS[variant])
