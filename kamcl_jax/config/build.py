"""Builds what a config describes; here and in `data_from_config` its fields become arguments."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from input_pipeline.errors import DataError
from input_pipeline.language.texts import equal_text_ids
from input_pipeline.splits.examples import RetrievalData
from input_pipeline.splits.loading import load_prepared
from kamcl_jax.config import data as data_from_config
from kamcl_jax.config import encoders, extra_terms, fields
from kamcl_jax.config.encoders import make_model
from kamcl_jax.errors import ConfigError
from kamcl_jax.models.towers import DualEncoder
from kamcl_jax.parallel import hosts
from kamcl_jax.parallel import mesh as device_mesh
from kamcl_jax.parallel.mesh import Layout
from kamcl_jax.step import pair_ids, schedule
from kamcl_jax.step import state as train_state
from kamcl_jax.step.momentum import Mask
from kamcl_jax.step.objective import ObjectiveSettings
from kamcl_jax.step.state import TrainState, state_layout
from kamcl_jax.step.train_step import StepSettings
from kamcl_jax.weights import starting_weights
from kamcl_jax.weights.release_layout import release_momentum_mask

PREPARING_TIMEOUT = 24 * 3600
"""Seconds that a process waits for others that still prepare their data."""

UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiler options for what runs once."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config's data, model, optimiser and numbers, ready to train or to evaluate.

    Attributes:
      config: frozen copy.
      data: prepared splits, vocabulary and concepts.
      model: both towers.
      optimizer: with its learning rate schedule.
      settings: numbers of the training step.
      abstract_state: shapes and dtypes of the state.
      layout: where state and batches lie on the devices.
    """

    config: ml_collections.FrozenConfigDict
    data: RetrievalData
    model: DualEncoder
    optimizer: optax.GradientTransformation
    settings: StepSettings
    abstract_state: TrainState
    layout: Layout

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.settings.objective.steps_per_epoch

    def initial_state(self) -> TrainState:
        """Returns the state at step 0, placed by the layout."""
        make = partial(make_state, self.config, self.model, self.optimizer, self.data.num_concepts)
        state = starting_weights.starting_state(
            self.config, run_once(make, self.layout.state), self.data.vocabulary.words
        )
        return jax.device_put(state, self.layout.state)

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes and dtypes of a training batch."""
        return abstract_batch(self.config, self.data.train.tokens.shape[1], self.data.num_concepts)


def build(config: ml_collections.ConfigDict, *, trains: bool = True) -> Experiment:
    """Checks the config, prepares its data and makes everything that training needs.

    Of several processes, each waits until all have their data.

    Args:
      config: as `configs.base` describes it.
      trains: whether batches will be shared out for training; evaluation fills up its own.

    Raises:
      ConfigError: a field that cannot be.
      DataError: a file or line of the data that cannot be used.
    """
    mesh = check_with_devices(config, trains=trains)
    settings = data_from_config.settings(config)
    data = load_prepared(data_from_config.open_data(config), settings)
    hosts.barrier("data", PREPARING_TIMEOUT)
    hosts.check_equal("training captions", data.training_captions)
    if not data.concepts.words:
        raise DataError(
            "There are no concepts to learn: no word is repeated by the captions of an image "
            f"(config.concepts.min_repeats is {config.concepts.min_repeats}), frequent enough "
            f"(config.data.min_word_count is {config.data.min_word_count}) and no stop word."
        )
    num_captions = len(data.train.captions)
    fields.check_against_data(config, num_captions)
    steps_per_epoch = num_captions // config.batch_size
    num_tokens = len(data.vocabulary) + 1
    abstract = abstract_state(config, num_tokens, data.num_concepts)
    return Experiment(
        config=ml_collections.FrozenConfigDict(config),
        data=data,
        model=make_model(config, num_tokens, data.num_concepts),
        optimizer=make_optimizer(config, steps_per_epoch),
        settings=make_settings(config, steps_per_epoch),
        abstract_state=abstract,
        layout=make_layout(config, mesh, abstract),
    )


def check_with_devices(config: ml_collections.ConfigDict, *, trains: bool = True) -> Mesh:
    """Checks a config for the devices that there are, and returns their mesh.

    Args:
      config: as `configs.base` describes it.
      trains: whether the devices must share the training's batches and queues evenly.

    Raises:
      ConfigError: a field that cannot be.
    """
    fields.check(config)
    try:
        mesh = device_mesh.make_mesh(config.mesh.data, config.mesh.fsdp)
    except ValueError as error:
        raise ConfigError(f"config.mesh cannot be: {error}") from None
    fields.check_kernel(config, mesh.devices.flat[0].platform, mesh.size)
    encoders.check(config, compute_dtype(config))
    if trains:
        fields.check_division(config, mesh.size)
        shapes = abstract_batch(config, max_tokens=1, num_concepts=config.num_concepts)
        extra_terms.check(config, shapes)
    return mesh


def on_these_devices(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns a config that fits the devices here, whatever a checkpoint was trained on."""
    config = config.copy_and_resolve_references()
    config.mesh.data = -1
    config.mesh.fsdp = 1
    config.mesh.queue = "replicated"
    config.image_encoder.pooling_kernel = "counting"
    return config


def make_layout(
    config: ml_collections.ConfigDict, mesh: Mesh, abstract_state: TrainState
) -> Layout:
    """Returns where a state and its batches lie.

    Args:
      config: its `mesh`.
      mesh: of its devices.
      abstract_state: from `abstract_state`.
    """
    return state_layout(
        mesh,
        abstract_state,
        fsdp_min_size=config.mesh.fsdp_min_size,
        queue=config.mesh.queue,
    )


def make_optimizer(
    config: ml_collections.ConfigDict, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Returns Adam with the published step decay, after clipping if the config asks for it."""
    optimizer = config.optimizer
    learning_rate = schedule.step_decay(
        optimizer.learning_rate,
        optimizer.decay_factor,
        optimizer.decay_every_epochs,
        steps_per_epoch,
    )
    adam = optax.adam(learning_rate, eps=optimizer.epsilon)
    if optimizer.clip_norm:
        return optax.chain(optax.clip_by_global_norm(optimizer.clip_norm), adam)
    return adam


def abstract_state(
    config: ml_collections.ConfigDict, num_tokens: int, num_concepts: int
) -> TrainState:
    """Returns the shapes and dtypes of the state that a config describes; needs no data.

    Args:
      config: of the model, the queue and the optimiser.
      num_tokens: rows of the word embedding, the padding included.
      num_concepts: width of labels and word concepts.
    """
    model = make_model(config, num_tokens, num_concepts)
    optimizer = make_optimizer(config, steps_per_epoch=1)
    return jax.eval_shape(lambda: make_state(config, model, optimizer, num_concepts))


def abstract_batch(
    config: ml_collections.ConfigDict, max_tokens: int, num_concepts: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes and dtypes of a training batch, over all processes.

    Args:
      config: of the training.
      max_tokens: width of its captions.
      num_concepts: width of labels and word concepts.
    """
    size, side = config.batch_size, data_from_config.train_size(config)
    shapes = {
        "image": ((size, side, side, 3), jnp.uint8),
        "tokens": ((size, max_tokens), jnp.int32),
        "lengths": ((size,), jnp.int32),
        "word_concepts": ((size, num_concepts), jnp.float32),
        "image_concepts": ((size, num_concepts), jnp.float32),
    }
    if config.loss.mask_false_negatives:
        shapes |= {pair_ids.IMAGE: ((size,), jnp.int32), pair_ids.TEXT: ((size,), jnp.int32)}
    return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}


def text_of_caption(config: ml_collections.ConfigDict, data: RetrievalData) -> np.ndarray | None:
    """Returns which text each training caption is, i64[M]; None where batches need not say it."""
    if not config.loss.mask_false_negatives:
        return None
    return equal_text_ids(data.train.captions)


def make_state(
    config: ml_collections.ConfigDict,
    model: DualEncoder,
    optimizer: optax.GradientTransformation,
    num_concepts: int,
) -> TrainState:
    """Returns the state at step 0 with random weights; pure, to be traced.

    Args:
      config: its seed, sizes and momentum.
      model: both towers.
      optimizer: over the query parameters.
      num_concepts: width of labels and word concepts.
    """
    return train_state.create(
        config.seed,
        model,
        optimizer,
        image_size=config.image_size,
        num_concepts=num_concepts,
        embedding_size=config.embedding_size,
        queue_length=config.queue_length,
        momentum_mask=momentum_mask(config),
        queue_ids=queue_ids(config),
    )


def run_once(make: Callable[[], TrainState], places: Any) -> TrainState:
    """Runs a compiled function whose compilation is not worth being optimised.

    On a CPU, optimising the first state's takes three times as long as not doing so.

    Args:
      make: pure.
      places: shardings of its result.
    """
    options = UNOPTIMISED if jax.default_backend() == "cpu" else None
    return jax.jit(make, out_shardings=places, compiler_options=options)()


def momentum_mask(config: ml_collections.ConfigDict) -> Mask | None:
    """Returns which key parameters follow the query's; None: all of them, as in the paper."""
    return release_momentum_mask if config.momentum_coverage == "release" else None


def queue_ids(config: ml_collections.ConfigDict) -> bool:
    """Returns whether the queues say which pairs their keys are of."""
    return config.loss.mask_false_negatives and config.loss.negatives == "queue"


def compute_dtype(config: ml_collections.ConfigDict) -> DTypeLike | None:
    """Returns what the encoders' weights and activations are cast to; None leaves them."""
    return jnp.bfloat16 if config.dtype == "bfloat16" else None


def make_settings(config: ml_collections.ConfigDict, steps_per_epoch: int) -> StepSettings:
    """Returns the numbers of the training step."""
    return StepSettings(
        objective=ObjectiveSettings(
            temperature=config.temperature,
            margin=config.loss.margin,
            negatives=config.loss.negatives,
            triplet_weight=config.loss.triplet_weight,
            contrastive_weight=config.loss.contrastive_weight,
            alignment_weight=config.loss.alignment_weight,
            alignment_from_epoch=config.schedule.alignment_from_epoch,
            steps_per_epoch=steps_per_epoch,
            mask_false_negatives=config.loss.mask_false_negatives,
            extra_terms=extra_terms.make(config),
        ),
        image_size=config.image_size,
        max_rotation=config.augmentation.max_rotation,
        momentum=config.momentum,
        momentum_mask=momentum_mask(config),
        parts=config.gradient_accumulation,
        dtype=compute_dtype(config),
        skip_not_finite=config.not_finite == "skip",
    )
