"""The momentum encoder and the key queue of MoCo (He et al. 2020) as functions over pytrees."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from kamcl_jax.step import pair_ids
from kamcl_jax.step.pair_ids import PairIds

Mask = Callable[[Any], Any]
"""Parameters -> tree of bools of the same structure, as optax's masks are."""


def average(
    key_params: Any, query_params: Any, momentum: float | jax.Array, mask: Mask | None = None
) -> Any:
    """Moves key parameters towards query parameters: momentum * key + (1 - momentum) * query.

    Args:
      key_params: pytree of f32 arrays.
      query_params: pytree of the same structure and shapes.
      momentum: share of the key parameters that stays; 0.999 in the paper. 0 copies the query's.
      mask: which key parameters move; all, if None (the paper's rule).

    Returns:
      The new key parameters.

    Raises:
      ValueError: the trees differ in structure.
    """
    moves = jax.tree.map(lambda _: True, key_params) if mask is None else mask(key_params)
    return jax.tree.map(
        lambda key, query, moved: momentum * key + (1 - momentum) * query if moved else key,
        key_params,
        query_params,
        moves,
    )


class KeyQueue(struct.PyTreeNode):
    """A ring buffer of past keys.

    Attributes:
      keys: f32[K, E], unit vectors.
      pointer: i32[], row that the next batch of keys takes.
      ids: of the K pairs that the keys are of; None where no one asks.
    """

    keys: jax.Array
    pointer: jax.Array
    ids: PairIds | None = None


def random_queue(key: jax.Array, length: int, width: int, *, with_ids: bool = False) -> KeyQueue:
    """Returns a queue of `length` random unit vectors of `width` entries, as training starts.

    Args:
      key: PRNG key.
      length: K.
      width: E.
      with_ids: whether the queue says which pairs its keys are of: of none, at first.
    """
    keys = jax.random.normal(key, (length, width))
    keys /= jnp.linalg.norm(keys, axis=1, keepdims=True)
    return KeyQueue(keys, jnp.zeros((), jnp.int32), pair_ids.unknown(length) if with_ids else None)


def push(queue: KeyQueue, keys: jax.Array, ids: PairIds | None = None) -> KeyQueue:
    """Replaces the oldest keys by new ones, first in first out.

    A scatter, which GSPMD splits along the queue without moving the queue.

    Args:
      queue: of length K.
      keys: f32[B, E], unit vectors, stored without gradient.
      ids: of the B pairs, if the queue has ids.

    Returns:
      The queue with `keys` written and the pointer moved on.

    Raises:
      ValueError: there are more keys than the queue has rows, or ids where the queue has none, or
        none where it has.
    """
    length, batch = queue.keys.shape[0], keys.shape[0]
    if batch > length:
        raise ValueError(f"a batch of {batch} keys does not fit into a queue of length {length}")
    rows = (queue.pointer + jnp.arange(batch)) % length

    def write(stored: jax.Array, new: jax.Array) -> jax.Array:
        return stored.at[rows].set(new, unique_indices=True)

    return KeyQueue(
        write(queue.keys, jax.lax.stop_gradient(keys)),
        (queue.pointer + batch) % length,
        jax.tree.map(write, queue.ids, ids),
    )
