"""Builds what a config describes: here and in `data` its fields become arguments."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh

from input_pipeline.errors import DataError
from input_pipeline.language.directions import say_direction
from input_pipeline.language.texts import SPLITS, equal_text_ids
from input_pipeline.splits.examples import Examples, RetrievalData
from input_pipeline.splits.loading import load_prepared
from kamcl_jax.config import checks, data, recipe
from kamcl_jax.config.encoders import check_encoders, make_model, tokenizer
from kamcl_jax.config.plugins import Compare, check_extra_terms
from kamcl_jax.errors import ConfigError
from kamcl_jax.models.towers import LOGIT_BIAS, LOGIT_SCALE, DualEncoder
from kamcl_jax.parallel import hosts
from kamcl_jax.parallel.mesh import Layout, make_mesh
from kamcl_jax.step import finetuning, objective, state, temperature
from kamcl_jax.step.augmentation import SAYS_DIRECTION
from kamcl_jax.step.encoding import Encodings
from kamcl_jax.step.key_queue import IMAGE_ID, TEXT_ID, random_queue
from kamcl_jax.step.objective import Comparison
from kamcl_jax.step.state import TrainState, state_layout
from kamcl_jax.step.train_step import StepSettings
from kamcl_jax.weights import starting_weights

PREPARING_TIMEOUT = 24 * 3600
"""The seconds that a process waits for others that still prepare their data."""

UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiler options on a CPU for what runs once: optimising the first state's program takes three
times as long as not doing so."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config's data, model, optimiser and numbers, ready to train or to evaluate.

    Attributes:
      config: A frozen copy of the config.
      data: The prepared splits, the vocabulary and the concepts.
      model: Both towers.
      optimizer: Adam or Muon, with its learning rate schedule.
      settings: The constants of the training step.
      abstract_state: The shapes and dtypes of the state.
      layout: Where state and batches lie on the devices.
      steps_per_epoch: The batches of an epoch.
    """

    config: ml_collections.FrozenConfigDict
    data: RetrievalData
    model: DualEncoder
    optimizer: optax.GradientTransformation
    settings: StepSettings
    abstract_state: TrainState
    layout: Layout
    steps_per_epoch: int

    def initial_state(self) -> TrainState:
        """Returns the state at step 0, where the layout places it."""
        state = initial_state(
            self.config, self.data.vocabulary.words, self.data.num_concepts, self.layout.state
        )
        return jax.device_put(state, self.layout.state)

    def frozen(self) -> Any:
        """Returns the parameters that do not train, where the layout places them; {} without any.

        They are those of the initial state, and no checkpoint holds them.
        """
        return self.initial_state().frozen if self.abstract_state.frozen else {}

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes and dtypes of a training batch."""
        return abstract_batch(self.config, self.data.train.tokens.shape[1], self.data.num_concepts)


def build(
    config: ml_collections.ConfigDict,
    *,
    trains: bool = True,
    written: Path | None = None,
    with_images: Collection[str] = SPLITS,
) -> Experiment:
    """Checks the config, prepares its data and makes everything that training needs.

    Each of several processes waits until all have their data.

    Args:
      config: The config.
      trains: Whether it will be trained, which needs concepts, and enough captions for a batch
        that the devices share evenly.
      written: The folder of the run's tokeniser, see `encoders.tokenizer`.
      with_images: The splits whose images will be read.

    Raises:
      ConfigError: A field cannot be what it is.
      DataError: A file or line of the data cannot be used.
    """
    mesh = check_with_devices(config, trains=trains)
    reading = tokenizer(config, written)  # before the data, whose preparation takes longer
    loaded = load_prepared(
        data.open_data(config),
        data.settings(config),
        data.read_threads(config),
        reading,
        with_images,
    )
    hosts.barrier("data", PREPARING_TIMEOUT)
    hosts.check_equal("training captions", loaded.training_captions)
    if trains and not loaded.concepts.words:
        raise DataError(
            "There are no concepts to learn: no word is repeated by the captions of an image "
            f"(config.concepts.min_repeats is {config.concepts.min_repeats}), frequent enough "
            f"(config.data.min_word_count is {config.data.min_word_count}) and no stop word."
        )
    num_captions = len(loaded.train.captions)
    if trains:
        checks.check_against_data(config, num_captions)
    steps_per_epoch = max(1, num_captions // config.batch_size)
    num_tokens = len(loaded.vocabulary) + 1
    abstract = abstract_state(config, num_tokens, loaded.num_concepts)
    return Experiment(
        config=ml_collections.FrozenConfigDict(config),
        data=loaded,
        model=make_model(config, num_tokens, loaded.num_concepts),
        optimizer=recipe.make_optimizer(config, steps_per_epoch),
        settings=recipe.make_settings(config, steps_per_epoch),
        abstract_state=abstract,
        layout=make_layout(config, mesh, abstract),
        steps_per_epoch=steps_per_epoch,
    )


def check_with_devices(config: ml_collections.ConfigDict, *, trains: bool = True) -> Mesh:
    """Checks a config for the devices that there are, and returns their mesh.

    Args:
      config: The config.
      trains: Whether the devices must share the training's batches and queues evenly.

    Raises:
      ConfigError: A field cannot be what it is.
    """
    checks.check_config(config)
    try:
        mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
    except ValueError as error:
        raise ConfigError(f"config.mesh cannot be: {error}") from None
    checks.check_kernel(config, mesh.devices.flat[0])
    check_encoders(config, recipe.compute_dtype(config))
    if trains:
        checks.check_division(config, mesh.size)
        if config.loss.extra_terms:
            check_extra_terms(config, *_abstract_comparison(config))
    return mesh


def on_these_devices(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns a config that fits the devices here, whatever a checkpoint was trained on."""
    config = config.copy_and_resolve_references()
    config.mesh.data = -1
    config.mesh.fsdp = 1
    config.mesh.queue = "replicated"
    if config.image_encoder.pooling_kernel == "pallas":
        config.image_encoder.pooling_kernel = "auto"
    config.encoders.attention = "xla"
    return config


def make_layout(
    config: ml_collections.ConfigDict, mesh: Mesh, abstract_state: TrainState
) -> Layout:
    """Returns where a state and its batches lie on the devices of a mesh."""
    return state_layout(
        mesh,
        abstract_state,
        fsdp_min_size=config.mesh.fsdp_min_size,
        queue=config.mesh.queue,
    )


def abstract_state(
    config: ml_collections.ConfigDict, num_tokens: int, num_concepts: int
) -> TrainState:
    """Returns the shapes and dtypes of the state that a config describes; needs no data.

    Args:
      config: The config.
      num_tokens: The rows of the word embedding, the padding included.
      num_concepts: The concepts that the data set really has.
    """
    model = make_model(config, num_tokens, num_concepts)
    optimizer = recipe.make_optimizer(config, steps_per_epoch=1)
    return jax.eval_shape(lambda: make_state(config, model, optimizer, num_concepts))


def abstract_batch(
    config: ml_collections.ConfigDict, max_tokens: int, num_concepts: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes and dtypes of a training batch over all processes.

    Args:
      config: The config.
      max_tokens: The words of the longest caption.
      num_concepts: The concepts that the data set really has.
    """
    size, side = config.batch_size, data.train_size(config)
    shapes = {
        "image": ((size, side, side, 3), jnp.uint8),
        "tokens": ((size, max_tokens), jnp.int32),
        "lengths": ((size,), jnp.int32),
        "word_concepts": ((size, num_concepts), jnp.float32),
        "image_concepts": ((size, num_concepts), jnp.float32),
    }
    shapes |= {name: ((size,), column.dtype) for name, column in _caption_columns(config).items()}
    return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}


def _abstract_comparison(config: ml_collections.ConfigDict) -> tuple[Compare, tuple[Any, Any]]:
    """Returns how a training step makes what a loss looks at, and the shapes of what it is made of.

    The step's own parts do it, so that a loss that is tried on it gets what it will get.
    """

    def floats(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    size, side, num_concepts = config.batch_size, config.image_size, config.num_concepts
    encodings = Encodings(
        *[floats(size, config.embedding_size)] * 2, *[floats(size, num_concepts)] * 2
    )
    model = make_model(config, num_tokens=1, num_concepts=num_concepts)
    starts = {LOGIT_SCALE: model.initial_temperature, LOGIT_BIAS: model.initial_bias}
    of_logits = {name: floats() for name, start in starts.items() if start is not None}
    batch = abstract_batch(config, max_tokens=1, num_concepts=num_concepts)
    queue = jax.eval_shape(
        partial(
            random_queue,
            length=config.queue_length,
            width=config.embedding_size,
            with_ids=recipe.queue_ids(config),
        ),
        jax.random.key(0),
    )
    step = jax.ShapeDtypeStruct((), jnp.int32)

    def compare(trained: Any, others: Any) -> Comparison:
        queries, params = trained
        keys, batch, images, texts, step = others
        contrast = temperature.with_learned(recipe.contrast(config), params)
        return objective.compare(queries, keys, batch, images, texts, step, contrast)

    augmented = {**batch, "image": floats(size, side, side, 3)}
    return compare, ((encodings, of_logits), (encodings, augmented, queue, queue, step))


def caption_columns(config: ml_collections.ConfigDict, examples: Examples) -> dict[str, np.ndarray]:
    """Returns what a batch says of each caption beside its words: name -> [M].

    There are none where nothing asks for them.
    """
    wanted = _caption_columns(config).items()
    return {name: column.of(examples).astype(column.dtype) for name, column in wanted}


class _CaptionColumn(NamedTuple):
    dtype: type[np.generic]
    of: Callable[[Examples], np.ndarray]  # the M captions of a split -> [M]


def _caption_columns(config: ml_collections.ConfigDict) -> dict[str, _CaptionColumn]:
    columns = {}
    if recipe.contrast(config).needs_ids:
        columns[IMAGE_ID] = _CaptionColumn(np.int32, lambda split: split.image_of_caption)
        columns[TEXT_ID] = _CaptionColumn(np.int32, lambda split: equal_text_ids(split.captions))
    if config.augmentation.flips or config.augmentation.quarter_turns:
        columns[SAYS_DIRECTION] = _CaptionColumn(
            np.bool_, lambda split: say_direction(split.captions)
        )
    return columns


def make_state(
    config: ml_collections.ConfigDict,
    model: DualEncoder,
    optimizer: optax.GradientTransformation,
    num_concepts: int,
) -> TrainState:
    """Returns the state at step 0 with random weights: a pure function, to be traced."""
    return state.create(
        config.seed,
        model,
        optimizer,
        image_size=config.image_size,
        num_concepts=num_concepts,
        embedding_size=config.embedding_size,
        queue_length=config.queue_length,
        momentum_mask=recipe.momentum_mask(config),
        queue_ids=recipe.queue_ids(config),
        finetuning=recipe.finetuning(config),
    )


def initial_state(
    config: ml_collections.ConfigDict, words: Sequence[str], num_concepts: int, places: Any = None
) -> TrainState:
    """Returns the state at step 0, with the published weights that the config names.

    Args:
      config: The config.
      words: Those of the vocabulary.
      num_concepts: The concepts that the data set really has.
      places: The shardings of the random weights; None leaves them to JAX.
    """
    model = make_model(config, len(words) + 1, num_concepts)
    optimizer = recipe.make_optimizer(config, steps_per_epoch=1)
    random = run_once(partial(make_state, config, model, optimizer, num_concepts), places)
    return starting_weights.starting_state(config, random, words, recipe.finetuning(config))


def retrieving_fields(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Returns what retrieves: the collections of a model's variables -> their fields of the state.

    All that validates, scores, exports or embeds reads these.
    """
    prefix = "key_" if config.evaluation.encoders == "key" else ""
    return {collection: f"{prefix}{collection}" for collection in ("params", "batch_stats")}


def retrieving_variables(config: ml_collections.ConfigDict, state: TrainState) -> dict[str, Any]:
    """Returns the variables that retrieve, see `retrieving_fields`, as `apply` takes them."""
    fields = retrieving_fields(config)
    trained = {collection: getattr(state, field) for collection, field in fields.items()}
    return whole_variables(config, trained, state.frozen)


def source_of_frozen(config: ml_collections.ConfigDict) -> str:
    """Returns in a few words where the parameters that do not train come from."""
    return config.encoders.pretrained or f"config.seed={config.seed}"


def whole_variables(
    config: ml_collections.ConfigDict, trained: dict[str, Any], frozen: Any
) -> dict[str, Any]:
    """Returns variables as `apply` takes them.

    Args:
      config: It says what trains.
      trained: Of the `params` those that train, and the `batch_stats`.
      frozen: The parameters that do not train.
    """
    params = finetuning.whole(recipe.finetuning(config), trained["params"], frozen)
    return {**trained, "params": params}


def run_once(make: Callable[[], TrainState], places: Any) -> TrainState:
    """Compiles a pure function quickly and runs it; `places` are the shardings of its result."""
    options = UNOPTIMISED if jax.default_backend() == "cpu" else None
    return jax.jit(make, out_shardings=places, compiler_options=options)()
