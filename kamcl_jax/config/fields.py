"""Checks a config before anything is prepared or compiled, one clear sentence a mistake."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import base
from input_pipeline.images.files import BAD_IMAGES
from input_pipeline.splits.settings import CHOICES as DATA_CHOICES
from kamcl_jax.errors import ConfigError
from kamcl_jax.models.gpo import COUNT_UP_TO, KERNELS
from kamcl_jax.models.resnet import BLOCKS_PER_STAGE, stage_channels
from kamcl_jax.parallel.mesh import QUEUES
from kamcl_jax.ranking.ranks import TIES
from kamcl_jax.step.objective import NEGATIVES
from kamcl_jax.step.train_step import NOT_FINITE

FREE_TO_CHANGE = frozenset(
    {
        "num_epochs",
        "num_folds",
        "max_steps",
        "log_every_steps",
        "not_finite",
        "mesh.data",
        "mesh.fsdp",
        "mesh.fsdp_min_size",
        "mesh.queue",
        "checkpoint.keep",
        "checkpoint.every_steps",
        "evaluation.batch_size",
        "evaluation.ties",
        "image_encoder.rematerialise",
        "image_encoder.pooling_kernel",
        "image_encoder.pretrained",
        "text_encoder.pretrained",
        "data.dir",
        "data.prepared_dir",
        "data.bad_images",
        "data.split_sizes",
        "data.residency",
        "data.options.images",
        "data.options.captions",
    }
)
"""Fields that may differ from a checkpoint's. They change neither the model nor, except for
rounding, a step or a score. There are two exceptions: `evaluation.ties` says how scores are
counted, and `evaluation.batch_size` changes scores with the release's padding, see
`free_to_change`."""


_AT_LEAST_ONE = [
    "num_epochs",
    "batch_size",
    "image_size",
    "embedding_size",
    "num_concepts",
    "queue_length",
    "num_folds",
    "log_every_steps",
    "gradient_accumulation",
    "mesh.fsdp",
    "checkpoint.keep",
    "concepts.min_repeats",
    "data.min_word_count",
    "image_encoder.width",
    "text_encoder.word_width",
    "text_encoder.hidden_width",
    "optimizer.decay_every_epochs",
    "evaluation.batch_size",
]
_NOT_NEGATIVE = [
    "seed",
    "fold",
    "max_steps",
    "mesh.fsdp_min_size",
    "checkpoint.every_steps",
    "data.max_tokens",
    "loss.margin",
    "loss.triplet_weight",
    "loss.contrastive_weight",
    "loss.alignment_weight",
    "schedule.alignment_from_epoch",
    "optimizer.clip_norm",
    "augmentation.resize",
    "augmentation.max_rotation",
]
_POSITIVE = [
    "temperature",
    "optimizer.learning_rate",
    "optimizer.epsilon",
    "optimizer.decay_factor",
]
_SHARES = ["momentum", "text_encoder.dropout", "data.validation_fraction"]
_CHOICES = {
    "loss.negatives": NEGATIVES,
    "momentum_coverage": ("all", "release"),
    "caption_padding": ("masked", "release"),
    "dtype": ("float32", "bfloat16"),
    "not_finite": NOT_FINITE,
    "mesh.queue": QUEUES,
    "image_encoder.pooling_kernel": KERNELS,
    "data.bad_images": BAD_IMAGES,
    "data.split_sizes": ("report", "require"),
    "data.residency": ("auto", "device", "host"),
    **{f"data.{name}": choices for name, choices in DATA_CHOICES.items()},
    "evaluation.ties": TIES,
}
_SWITCHES = [
    "data.pad_concepts",
    "concepts.lemmatize",
    "image_encoder.rematerialise",
    "loss.mask_false_negatives",
]
_PATHS = ["concepts.stop_words", "image_encoder.pretrained", "text_encoder.pretrained"]


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns a config's leaves under dotted names, tuples as lists, as JSON has them."""
    leaves: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            leaves.update({f"{name}.{inner}": leaf for inner, leaf in flatten(value).items()})
        else:
            leaves[name] = _with_lists(value)
    return leaves


def _with_lists(value: Any) -> Any:
    return [_with_lists(entry) for entry in value] if isinstance(value, tuple | list) else value


def check_data(config: ml_collections.ConfigDict) -> None:
    """Checks what every mode needs: that each field is of its kind and in its range.

    Raises:
      ConfigError: the first field that cannot be, with its value.
    """
    fields = flatten(config)
    _check_ranges(fields)
    for name, choices in _CHOICES.items():
        if fields[name] not in choices:
            raise ConfigError(
                f"config.{name} is {fields[name]!r}; "
                f"it must be one of {', '.join(map(repr, choices))}"
            )
    for name in _SWITCHES:
        if not isinstance(fields[name], bool):
            raise ConfigError(f"config.{name} is {fields[name]!r}; it must be True or False")
    for name in _PATHS:
        if not isinstance(fields[name], str):
            raise ConfigError(f"config.{name} is {fields[name]!r}; it must be a path or ''")
    if 0 < fields["augmentation.resize"] < fields["image_size"]:
        raise ConfigError(
            f"config.augmentation.resize {fields['augmentation.resize']} is smaller than "
            f"config.image_size {fields['image_size']}, which is cropped from it"
        )


def check(config: ml_collections.ConfigDict) -> None:
    """Checks all that can be known of a training without its data and devices.

    Args:
      config: as `configs.base` describes it.

    Raises:
      ConfigError: the first field that cannot be, with its value.
    """
    check_data(config)
    fields = flatten(config)
    if fields["image_encoder.depth"] not in BLOCKS_PER_STAGE:
        known = ", ".join(map(str, BLOCKS_PER_STAGE))
        raise ConfigError(
            f"config.image_encoder.depth is {fields['image_encoder.depth']}; known are {known}"
        )
    first, second, *_ = stage_channels(fields["image_encoder.depth"], fields["image_encoder.width"])
    maps = first + second
    if fields["image_encoder.pooling_kernel"] == "pallas" and maps > COUNT_UP_TO:
        raise ConfigError(
            f"config.image_encoder.pooling_kernel='pallas' ranks up to {COUNT_UP_TO} maps; stages "
            f"1 and 2 of this network have {maps}"
        )
    if fields["queue_length"] < fields["batch_size"]:
        raise ConfigError(
            f"config.queue_length {fields['queue_length']} is smaller than config.batch_size "
            f"{fields['batch_size']}, so a batch of keys would not fit"
        )
    if fields["gradient_accumulation"] > 1 and fields["caption_padding"] == "release":
        raise ConfigError(
            "config.gradient_accumulation and config.caption_padding='release' do not go together: "
            "the release's padding depends on the longest caption of the whole batch"
        )
    if fields["mesh.data"] != -1 and fields["mesh.data"] < 1:
        raise ConfigError(
            f"config.mesh.data is {fields['mesh.data']}; it must be at least 1, or -1 for all"
        )


def check_division(config: ml_collections.ConfigDict, num_devices: int) -> None:
    """Checks that the devices can share what they are to share.

    Args:
      config: checked.
      num_devices: of the mesh.

    Raises:
      ConfigError: the first field that they do not divide.
    """
    parts = config.gradient_accumulation
    if config.batch_size % (num_devices * parts):
        in_parts = f" in {parts} parts (config.gradient_accumulation)" if parts > 1 else ""
        raise ConfigError(
            f"config.batch_size {config.batch_size} is not a multiple of the {num_devices} "
            f"devices that share a batch{in_parts}; config.mesh.data says how many of the "
            "machine's devices to use"
        )
    if config.mesh.queue == "sharded" and config.queue_length % num_devices:
        raise ConfigError(
            f"config.queue_length {config.queue_length} is not a multiple of the {num_devices} "
            "devices that share the queue (config.mesh.queue='sharded')"
        )


def check_kernel(config: ml_collections.ConfigDict, platform: str, num_devices: int) -> None:
    """Checks that the devices can run the kernel that ranks the low-level features.

    Args:
      config: checked.
      platform: of the mesh's devices, as JAX names it.
      num_devices: of the mesh.

    Raises:
      ConfigError: it is not for these devices.
    """
    if config.image_encoder.pooling_kernel == "pallas" and (platform, num_devices) != ("gpu", 1):
        raise ConfigError(
            "config.image_encoder.pooling_kernel='pallas' runs on one GPU; the mesh's devices are "
            f"{num_devices} of the kind {platform!r}"
        )


def _check_ranges(fields: dict[str, Any]) -> None:
    for name in (*_AT_LEAST_ONE, *_NOT_NEGATIVE, *_POSITIVE, *_SHARES):
        if isinstance(fields[name], bool) or not isinstance(fields[name], int | float):
            raise ConfigError(f"config.{name} is {fields[name]!r}; it must be a number")
    if fields["seed"] >= 2**31:
        raise ConfigError(f"config.seed is {fields['seed']}; it must be below 2**31")
    rules = (
        (_AT_LEAST_ONE, lambda value: value >= 1, "at least 1"),
        (_NOT_NEGATIVE, lambda value: value >= 0, "0 or more"),
        (_POSITIVE, lambda value: value > 0, "above 0"),
        (_SHARES, lambda value: 0 <= value < 1, "at least 0 and below 1"),
    )
    for names, holds, words in rules:
        for name in names:
            if not holds(fields[name]):
                raise ConfigError(f"config.{name} is {fields[name]}; it must be {words}")


def check_against_data(config: ml_collections.ConfigDict, num_captions: int) -> None:
    """Checks what needs the number of training captions.

    Raises:
      ConfigError: a batch is larger than the training split.
    """
    if config.batch_size > num_captions:
        raise ConfigError(
            f"config.batch_size {config.batch_size} is larger than the training split of "
            f"{num_captions} captions"
        )


def free_to_change(fields: Mapping[str, Any]) -> frozenset[str]:
    """Returns which fields of a run's config may differ from its checkpoint's.

    Args:
      fields: the flattened config.
    """
    if fields["caption_padding"] == "release":
        # The embedding of a caption depends on the others that it is evaluated with.
        return FREE_TO_CHANGE - {"evaluation.batch_size"}
    return FREE_TO_CHANGE


def check_against_checkpoint(config: ml_collections.ConfigDict, trained: dict[str, Any]) -> None:
    """Checks that a config continues the run that a checkpoint came from.

    Args:
      config: of this run.
      trained: the flattened config of the checkpoint.

    Raises:
      ConfigError: fields that are not `free_to_change` differ; all of them are listed.
    """
    now = flatten(config)
    # Fields that are newer than the checkpoint: it was trained with what is their default.
    trained = {**flatten(base.get_config()), **trained}
    free = free_to_change(now)
    differing = [
        f"config.{name}: {trained.get(name)} in the checkpoint, {now.get(name)} now"
        for name in sorted(now.keys() | trained.keys())
        if name not in free and now.get(name) != trained.get(name)
    ]
    if differing:
        raise ConfigError(
            "the working directory holds a run of another config (choose another --workdir): "
            + "; ".join(differing)
        )
