"""Everything that learns or remembers during training, as one pytree."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kamcl_jax.parallel.mesh import BATCH_AXES, Layout, parameter_spec
from kamcl_jax.step import momentum
from kamcl_jax.step.finetuning import TRAIN_ALL, Finetuning, split
from kamcl_jax.step.key_queue import KeyQueue, random_queue


class TrainState(struct.PyTreeNode):
    """The whole state of training; a step maps it to the next one.

    Attributes:
      step: i32[], the steps taken so far.
      skipped: i32[], how many of them left the state as it was, as their loss or gradient was not
        finite.
      params: The parameters of the query encoders that train, as `finetuning.split` has them.
      batch_stats: Their BatchNorm statistics; {} for encoders without any.
      key_params: The parameters of the key encoders, the momentum average of `params`.
      key_batch_stats: The key encoders' own BatchNorm statistics.
      opt_state: The optimiser's state for `params`.
      image_queue: Past image keys, the negatives of captions.
      text_queue: Past text keys, the negatives of images.
      rng: u32[2], the data of the PRNG key that each step folds its number into; it never changes.
        (It is raw data, since typed keys miss `jit`'s fast path once more on several devices.)
      frozen: The parameters that do not train, which both pairs of encoders share; {} where all do.
    """

    step: jax.Array
    skipped: jax.Array
    params: Any
    batch_stats: Any
    key_params: Any
    key_batch_stats: Any
    opt_state: optax.OptState
    image_queue: KeyQueue
    text_queue: KeyQueue
    rng: jax.Array
    frozen: Any = struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, Any]:
        """The variables of the query encoders, as `apply` takes them where all parameters train."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def saved(self) -> dict[str, Any]:
        """The fields that a checkpoint holds: what is frozen comes from elsewhere again."""
        return {name: value for name, value in vars(self).items() if name != "frozen"}


def create(
    seed: int,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    image_size: int,
    num_concepts: int,
    embedding_size: int,
    queue_length: int,
    momentum_mask: momentum.Mask | None = None,
    queue_ids: bool = False,
    finetuning: Finetuning = TRAIN_ALL,
) -> TrainState:
    """Returns the state at step 0; the key encoders start as copies of the query encoders.

    Args:
      seed: The seed of all randomness in training.
      model: A `DualEncoder`.
      optimizer: The optimiser of the query parameters.
      image_size: The side of the input images, in pixels.
      num_concepts: The width of word concepts.
      embedding_size: The width of the keys.
      queue_length: The number of keys in each queue.
      momentum_mask: The mask of the training step. Key parameters that never follow the query's
        start from random values of their own.
      queue_ids: Whether the queues keep the ids of their keys' pairs.
      finetuning: What trains.
    """
    init_key, image_key, text_key, _ = _split(seed)

    def init(key):
        images = jnp.zeros((1, image_size, image_size, 3))
        tokens, lengths = jnp.ones((1, 1), jnp.int32), jnp.ones((1,), jnp.int32)
        word_concepts = jnp.zeros((1, num_concepts))
        return model.init(key, images, tokens, lengths, word_concepts, train=False)

    variables = init(init_key)
    whole, batch_stats = variables["params"], variables.get("batch_stats", {})
    params, frozen = split(finetuning, whole, adapter_key(seed))
    if momentum_mask is None:
        # Copies: the state is donated to the step, and no buffer can be donated twice.
        key_params = jax.tree.map(jnp.copy, params)
    else:
        own = init(jax.random.fold_in(init_key, 1))["params"]
        key_params = momentum.average(own, params, 0.0, momentum_mask)
    queue = partial(random_queue, length=queue_length, width=embedding_size, with_ids=queue_ids)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        key_params=key_params,
        key_batch_stats=jax.tree.map(jnp.copy, batch_stats),
        opt_state=optimizer.init(params),
        image_queue=queue(image_key),
        text_queue=queue(text_key),
        rng=step_rng(seed),
        frozen=frozen,
    )


def step_rng(seed: int) -> jax.Array:
    """Returns `TrainState.rng` for a seed, u32[2]."""
    return jax.random.key_data(_split(seed)[3])


def adapter_key(seed: int) -> jax.Array:
    """Returns the key that a seed's adapters of low rank are drawn with."""
    return jax.random.fold_in(_split(seed)[0], 2)


def _split(seed: int) -> jax.Array:
    """Returns keys for the initial weights, the image queue, the text queue and the steps."""
    return jax.random.split(jax.random.key(seed), 4)


def state_layout(
    mesh: Mesh, abstract_state: TrainState, *, fsdp_min_size: int, queue: str
) -> Layout:
    """Returns the layout of a training.

    Parameters, their key copies and the optimiser's moments are split over `fsdp` by
    `parameter_spec`; a tensor and its moments have one shape and so one place.

    Args:
      mesh: From `make_mesh`.
      abstract_state: The shapes of the state.
      fsdp_min_size: Tensors with fewer entries stay whole on every device.
      queue: 'replicated', or 'sharded' for queues that are split over all devices.
    """
    fsdp = mesh.shape["fsdp"]

    def place(leaf) -> NamedSharding:
        return NamedSharding(mesh, parameter_spec(leaf.shape, fsdp, fsdp_min_size))

    shard_queues = queue == "sharded"
    rows = NamedSharding(mesh, PartitionSpec(BATCH_AXES) if shard_queues else PartitionSpec())
    places = jax.tree.map(place, abstract_state)

    def place_rows(queue: KeyQueue) -> KeyQueue:
        return queue.replace(keys=rows, ids=jax.tree.map(lambda _: rows, queue.ids))

    places = places.replace(
        image_queue=place_rows(places.image_queue), text_queue=place_rows(places.text_queue)
    )
    return Layout(mesh, places, shard_queues)
