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
from kamcl_jax.step.momentum import KeyQueue


class TrainState(struct.PyTreeNode):
    """The whole state of training; a step maps it to the next one.

    Attributes:
      step: i32[], steps taken.
      skipped: i32[], of them without an update, as their loss or gradient was no finite number.
      params: query encoders' parameters.
      batch_stats: query encoders' BatchNorm statistics; {} where they have none.
      key_params: key encoders' parameters, the momentum average of `params`.
      key_batch_stats: key encoders' own BatchNorm statistics.
      opt_state: the optimiser's state over `params`.
      image_queue: past image keys, negatives for captions.
      text_queue: past text keys, negatives for images.
      rng: u32[2], data of the PRNG key that a step folds its count into; it never changes. (Raw
        data, since typed keys miss `jit`'s fast path once more on several devices.)
    """

    step: jax.Array
    skipped: jax.Array
    params: Any
    batch_stats: Any
    key_params: Any
    key_batch_stats: Any
    opt_state: optax.OptState
    image_queue: momentum.KeyQueue
    text_queue: momentum.KeyQueue
    rng: jax.Array

    @property
    def variables(self) -> dict[str, Any]:
        """The query encoders' variables, as `apply` takes them: those that retrieve."""
        return {"params": self.params, "batch_stats": self.batch_stats}


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
) -> TrainState:
    """Returns the state at step 0; the key encoders start as copies of the query encoders.

    Args:
      seed: of all randomness in training.
      model: a `DualEncoder`.
      optimizer: applied to the query parameters.
      image_size: side of the input images in pixels.
      num_concepts: width of word concepts.
      embedding_size: width of the keys.
      queue_length: keys in each queue.
      momentum_mask: as in the training step; key parameters that never follow the query's start
        from random values of their own.
      queue_ids: whether the queues say which pairs their keys are of.
    """
    init_key, image_key, text_key, _ = _split(seed)

    def init(key):
        images = jnp.zeros((1, image_size, image_size, 3))
        tokens, lengths = jnp.ones((1, 1), jnp.int32), jnp.ones((1,), jnp.int32)
        word_concepts = jnp.zeros((1, num_concepts))
        return model.init(key, images, tokens, lengths, word_concepts, train=False)

    variables = init(init_key)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    if momentum_mask is None:
        # Copies: the state is donated to the step, and no buffer can be donated twice.
        key_params = jax.tree.map(jnp.copy, params)
    else:
        own = init(jax.random.fold_in(init_key, 1))["params"]
        key_params = momentum.average(own, params, 0.0, momentum_mask)
    queue = partial(
        momentum.random_queue, length=queue_length, width=embedding_size, with_ids=queue_ids
    )
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
    )


def step_rng(seed: int) -> jax.Array:
    """Returns `TrainState.rng` for a seed, u32[2]."""
    return jax.random.key_data(_split(seed)[3])


def _split(seed: int) -> jax.Array:
    """Keys of the initial weights, the image queue, the text queue and the steps."""
    return jax.random.split(jax.random.key(seed), 4)


def state_layout(
    mesh: Mesh, abstract_state: TrainState, *, fsdp_min_size: int, queue: str
) -> Layout:
    """Returns the layout of a training.

    Parameters, their key copies and the optimiser's moments are split over `fsdp` by
    `parameter_spec`; a tensor and its moments have one shape and so one place.

    Args:
      mesh: from `make_mesh`.
      abstract_state: shapes of the state.
      fsdp_min_size: entries below which a tensor stays whole.
      queue: one of `QUEUES`.
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
