"""What is timed: a config's model and one batch, of its data or, where those are missing, drawn."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh

from input_pipeline.splits.batches import batch_captions, make_batch
from input_pipeline.splits.examples import Examples, RetrievalData
from kamcl_jax.config import build, encoders, recipe
from kamcl_jax.config.data import prepared_dir
from kamcl_jax.models.towers import DualEncoder
from kamcl_jax.step.train_step import StepSettings

HostBatch = dict[str, np.ndarray]

# Those of RSICD's training captions, for a config without data.
WORDS, MAX_TOKENS = 1225, 34
WORDS_OF_CAPTION = (11.4, 3.2)  # mean and standard deviation

SHARE_OF_CONCEPTS = 0.01
"""The share of the concepts that a caption names, and an image is labelled with, in noise."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A config's training step without the loop around it.

    Attributes:
      data: The config's data; None where their files are missing.
      num_tokens: Rows of the word embedding.
      num_concepts: The width of labels and word concepts.
      batch: One training batch over all devices. If it is of the data, its longest caption is as
        long as usual: the text encoder's time depends on it.
    """

    config: ml_collections.FrozenConfigDict
    mesh: Mesh
    data: RetrievalData | None
    model: DualEncoder
    optimizer: optax.GradientTransformation
    settings: StepSettings
    num_tokens: int
    num_concepts: int
    batch: HostBatch

    @property
    def longest(self) -> int:
        """Words of the batch's longest caption."""
        return int(self.batch["lengths"].max())


def make(config: ml_collections.ConfigDict) -> Subject:
    """Builds what a config describes, with random data if its files are not there."""
    if has_data(config):
        experiment = build.build(config)
        data = experiment.data
        return Subject(
            config=experiment.config,
            mesh=experiment.layout.mesh,
            data=data,
            model=experiment.model,
            optimizer=experiment.optimizer,
            settings=experiment.settings,
            num_tokens=len(data.vocabulary) + 1,
            num_concepts=data.num_concepts,
            batch=typical_batch(
                data.train,
                config.seed,
                config.batch_size,
                build.caption_columns(config, data.train),
            ),
        )
    mesh = build.check_with_devices(config)
    num_tokens, steps_per_epoch = WORDS + 1, 1
    return Subject(
        config=ml_collections.FrozenConfigDict(config),
        mesh=mesh,
        data=None,
        model=build.make_model(config, num_tokens, config.num_concepts),
        optimizer=recipe.make_optimizer(config, steps_per_epoch),
        settings=recipe.make_settings(config, steps_per_epoch),
        num_tokens=num_tokens,
        num_concepts=config.num_concepts,
        batch=random_batch(config),
    )


def has_data(config: ml_collections.ConfigDict) -> bool:
    """Returns whether a config's data set is drawn or its folder is there."""
    folder = Path(os.path.expanduser(config.data.dir))
    places = (folder, prepared_dir(config))
    return config.data.name == "synthetic" or any(place.is_dir() for place in places)


def typical_batch(
    examples: Examples,
    seed: int,
    batch_size: int,
    columns: Mapping[str, np.ndarray] | None = None,
) -> HostBatch:
    """Returns one of the first batches of a training whose longest caption has the usual length.

    The training takes the examples in the order of that seed; `columns` are as in `make_batch`.
    """
    captions, batches = len(examples.captions), []
    for step in range(min(101, captions // batch_size)):
        rows = batch_captions(seed, step, captions, batch_size)
        batches.append((int(examples.lengths[rows].max()), step, rows))
    batches.sort(key=lambda batch: batch[:2])
    return make_batch(examples, batches[len(batches) // 2][2], columns)


def random_batch(config: ml_collections.ConfigDict, seed: int = 0) -> HostBatch:
    """Returns a training batch of noise with captions as long as RSICD's.

    A published model cuts them at its context; a SigLIP pads them up to it.
    """
    model, longest = encoders.published(config), config.data.max_tokens or MAX_TOKENS
    if model is not None:
        longest = model.text.context
    if model is None or model.family != "siglip":
        longest = min(MAX_TOKENS, longest)
    generator = np.random.default_rng(seed)
    lengths = generator.normal(*WORDS_OF_CAPTION, config.batch_size).round().clip(1, longest)
    return noise_batch(config, lengths.astype(np.int32), longest, WORDS + 1, generator)


def noise_batch(
    config: ml_collections.ConfigDict,
    lengths: np.ndarray,
    longest: int,
    num_tokens: int,
    generator: np.random.Generator,
) -> HostBatch:
    """Returns a training batch of noise as `build.abstract_batch` describes it.

    Its captions have `lengths` words, i32[B], and are padded to the longest; `num_tokens` are the
    rows of the word embedding, the padding included.
    """
    shapes = build.abstract_batch(config, longest, config.num_concepts)
    tokens = generator.integers(1, num_tokens, shapes["tokens"].shape, dtype=np.int32)
    tokens[np.arange(longest) >= lengths[:, None]] = 0
    concepts = shapes["word_concepts"].shape
    named, labelled = generator.random((2, *concepts)) < SHARE_OF_CONCEPTS
    batch = {
        "image": generator.integers(0, 256, shapes["image"].shape, dtype=np.uint8),
        "tokens": tokens,
        "lengths": lengths,
        "word_concepts": named.astype(np.float32),
        "image_concepts": labelled * generator.random(concepts, np.float32),
    }
    pairs = np.arange(config.batch_size)
    columns = {name: pairs.astype(shapes[name].dtype) for name in shapes.keys() - batch.keys()}
    return batch | columns


def device_words() -> str:
    """Returns what computes, in words."""
    devices = jax.devices()
    kind = devices[0].device_kind
    cores = f", {os.cpu_count()} cores" if jax.default_backend() == "cpu" else ""
    return f"{len(devices)} x {kind}{cores}"
