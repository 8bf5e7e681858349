"""What the configs of real data share: where files are, the image network, sizes and recipes."""

from collections.abc import Mapping
from typing import Any

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

STRONG = {
    "loss.negatives": "batch",
    "loss.mask_false_negatives": True,
    "loss.triplet_weight": 0.0,
    "momentum": 0.9,  # keys of the batch need not be like those of batches before
    "concepts.label_scale": "present",
    "schedule.alignment_from_epoch": 0,
    "schedule.alignment_ramp_epochs": 1.0,
    "optimizer.name": "muon",
    "optimizer.schedule": "cosine",
    "optimizer.warmup_steps": 100,
    "augmentation.flips": True,
    "augmentation.quarter_turns": True,
    "augmentation.max_rotation": 0.0,
}
"""The recipe that retrieves best of those that were tried: docs/results.md."""

SMALL_STRONG = {**STRONG, "optimizer.learning_rate": 12e-3}
"""The same for a narrow model from random weights, which takes larger steps."""

SMALL = {
    "batch_size": 100,
    "image_size": 96,
    "embedding_size": 256,
    "num_concepts": 128,
    "queue_length": 4000,
    "momentum": 0.99,  # the steps are too few for 0.999
    "image_encoder.width": 16,
    "text_encoder.word_width": 64,
    "text_encoder.hidden_width": 256,
    "optimizer.learning_rate": 1e-3,
}
"""A narrow model, which two cores train from random weights; `small_schedule` says how long."""

CLIP_B32 = {
    **STRONG,
    "encoders.preset": "ViT-B-32-quickgelu",
    "encoders.pretrained": "RemoteCLIP-ViT-B-32.pt",
    "encoders.hybrid": False,  # so that open_clip can take the model back
    "image_size": 224,
    "embedding_size": 512,
    "batch_size": 256,
    "queue_length": 256,  # no loss reads the queues
    "num_epochs": 10,
    "learn_temperature": True,
    "loss.contrastive_weight": 1.0,  # gradients are clipped at a norm for losses of this size
    "loss.alignment_weight": 1.0,
    "finetuning.new_rate": 100.0,
    "optimizer.name": "adam",
    "optimizer.learning_rate": 5e-6,
    "optimizer.weight_decay": 0.5,
    "optimizer.clip_norm": 50.0,
    "optimizer.epsilon": 1e-6,
}
"""Fine-tuning a published ViT-B/32, with the optimiser's numbers that others have published for it.

It has not been tried: docs/published_models.md says what is unverified.
"""

VARIANTS = (*DEPTHS, "release", "strong", "small", "small_strong", "clip_b32")


def small_schedule(epochs: int) -> dict[str, Any]:
    """Returns the paper's schedule, which has 20 epochs, for another number of them."""
    return {
        "num_epochs": epochs,
        "schedule.alignment_from_epoch": round(11 / 20 * epochs),
        "optimizer.decay_every_epochs": round(epochs / 2),
    }


def get_config(
    name: str, variant: str, *, small_epochs: int, published: Mapping[str, Any] | None = None
) -> ml_collections.ConfigDict:
    """Returns the config for a data set of caption files and an image folder.

    Args:
      name: The name of the data set, which is that of its config file.
      variant: One of `VARIANTS`.
      small_epochs: How many epochs the narrow model trains for.
      published: Where the paper's training on this data set differs from that on RSICD.

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
    changes = dict(published or {})
    if variant in DEPTHS:
        changes["image_encoder.depth"] = DEPTHS[variant]
    if variant == "release":
        changes |= RELEASE
    if variant.startswith("small"):
        changes |= SMALL | small_schedule(small_epochs)
    if variant == "strong":
        changes |= STRONG
    if variant == "small_strong":
        changes |= SMALL_STRONG
    if variant == "clip_b32":
        changes |= CLIP_B32
    config.update_from_flattened_dict(changes)
    return config
