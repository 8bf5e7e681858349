"""What a config's fields must be to each other, to the devices and to the data.

Whatever cannot be raises a `ConfigError` in one sentence.
"""

from typing import Any

import ml_collections

from kamcl_jax.config.fields import check_fields
from kamcl_jax.errors import ConfigError
from kamcl_jax.parallel.mesh import runs_triton


def check_config(config: ml_collections.ConfigDict) -> None:
    """Checks all that can be known of a training without its data and its devices."""
    check_fields(config)
    resize = config.augmentation.resize
    if 0 < resize < config.image_size:
        raise ConfigError(
            f"config.augmentation.resize {resize} is smaller than config.image_size "
            f"{config.image_size}, which is cropped from it"
        )
    if config.queue_length < config.batch_size:
        raise ConfigError(
            f"config.queue_length {config.queue_length} is smaller than config.batch_size "
            f"{config.batch_size}, so a batch of keys would not fit"
        )
    if config.loss.positives == "concepts" and config.loss.negatives != "batch":
        raise ConfigError(
            "config.loss.positives='concepts' needs config.loss.negatives='batch': the queues hold "
            "no concepts"
        )
    if config.loss.positives == "equal" and config.loss.mask_false_negatives:
        raise ConfigError(
            "config.loss.positives='equal' and config.loss.mask_false_negatives do not go "
            "together: keys of a query's image or text cannot be positives and left out"
        )
    if config.gradient_accumulation > 1 and config.caption_padding == "release":
        raise ConfigError(
            "config.gradient_accumulation and config.caption_padding='release' do not go together: "
            "the release's padding depends on the longest caption of the whole batch"
        )
    if config.encoders.attention == "cudnn" and config.dtype != "bfloat16":
        raise ConfigError("config.encoders.attention='cudnn' needs config.dtype='bfloat16'")
    if config.evaluation.encoders == "key" and config.momentum_coverage == "release":
        raise ConfigError(
            "config.evaluation.encoders='key' and config.momentum_coverage='release' do not go "
            "together: most of the release's image key encoder stays at random weights"
        )


def check_division(config: ml_collections.ConfigDict, num_devices: int) -> None:
    """Checks that the devices of a mesh divide what they share."""
    microbatches = config.gradient_accumulation
    if config.batch_size % (num_devices * microbatches):
        each = "" if microbatches == 1 else f" in {microbatches} microbatches"
        raise ConfigError(
            f"config.batch_size {config.batch_size} is not a multiple of the {num_devices} "
            f"devices that share a batch{each}; config.mesh.data says how many of the machine's "
            "devices to use"
        )
    if config.mesh.queue == "sharded" and config.queue_length % num_devices:
        raise ConfigError(
            f"config.queue_length {config.queue_length} is not a multiple of the {num_devices} "
            "devices that share the queue (config.mesh.queue='sharded')"
        )


def check_kernel(config: ml_collections.ConfigDict, device: Any) -> None:
    """Checks that a device can run the kernels that the config asks for."""
    if config.image_encoder.pooling_kernel == "pallas" and not runs_triton(device):
        raise ConfigError(
            "config.image_encoder.pooling_kernel='pallas' runs on GPUs since NVIDIA's Ampere; the "
            f"mesh's devices are of the kind {device.device_kind!r} ('auto' chooses for them)"
        )
    if config.encoders.attention == "cudnn" and device.platform != "gpu":
        raise ConfigError(
            "config.encoders.attention='cudnn' runs on NVIDIA's GPUs; the mesh's devices are of "
            f"the kind {device.device_kind!r}"
        )


def check_against_data(config: ml_collections.ConfigDict, num_captions: int) -> None:
    """Checks that a batch is not larger than the training split."""
    if config.batch_size > num_captions:
        raise ConfigError(
            f"config.batch_size {config.batch_size} is larger than the training split of "
            f"{num_captions} captions"
        )
