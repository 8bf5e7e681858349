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

SMALL = {
    "num_epochs": 8,
    "batch_size": 50,
    "image_size": 64,
    "embedding_size": 128,
    "num_concepts": 128,
    "queue_length": 1000,
    "momentum": 0.99,  # the steps are too few for 0.999
    "image_encoder.width": 16,
    "text_encoder.word_width": 64,
    "text_encoder.hidden_width": 128,
    "schedule.alignment_from_epoch": 4,
    "optimizer.learning_rate": 1e-3,
    "optimizer.decay_every_epochs": 6,
}
"""A narrow model and a short schedule with both of its steps, for a laptop."""

VARIANTS = {name: {"image_encoder.depth": depth} for name, depth in DEPTHS.items()} | {
    "small": SMALL,
    "release": RELEASE,
}


def get_config(name: str, variant: str) -> ml_collections.ConfigDict:
    """Returns the base config for a data set of caption files and an image folder.

    Args:
      name: The name of the data set, which is that of its config file.
      variant: A key of `VARIANTS`.

    Raises:
      ValueError: The variant is unknown.
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
