"""The nearest items of queries among any number of embeddings, in bounded memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from kamcl_jax import score_blocks
from kamcl_jax.score_blocks import Array

QUERIES_AT_ONCE = 256
ITEMS_AT_ONCE = 2**17
"""With as many queries, 128 MB of scores; their embeddings take as much at a width of 256."""

Best = tuple[jax.Array, jax.Array]


def top_k(
    queries: Array,
    items: Array,
    k: int,
    *,
    queries_at_once: int = QUERIES_AT_ONCE,
    items_at_once: int = ITEMS_AT_ONCE,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k items with the largest inner products for each query.

    Of items that score the same, those of lower index come first. A NaN counts as -inf.

    Args:
      queries: f32[Q, E], on the host or a device.
      items: f32[N, E], on the host (also mapped from a file: it is read in parts) or a device.
      k: how many; all of them in order, if there are fewer.
      queries_at_once: bounds the memory, with `items_at_once`.
      items_at_once: how many items are on the device at once and scored, at least k.

    Returns:
      Scores f32[Q, min(k, N)], descending, and the items' indices i32[Q, min(k, N)].

    Raises:
      ValueError: k is less than 1, or `queries` and `items` differ in width.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    if queries.shape[1] != items.shape[1]:
        raise ValueError(
            f"queries are {queries.shape[1]} wide and items {items.shape[1]}; they must be equal"
        )
    k, size = min(k, len(items)), max(k, items_at_once)
    found = [
        _of_block(score_blocks.part(queries, block), items, k, size)
        for block in _slices(len(queries), queries_at_once)
    ]
    if not found:
        return np.zeros((0, k), np.float32), np.zeros((0, k), np.int32)
    scores, indices = zip(*found, strict=True)
    return np.concatenate(scores), np.concatenate(indices)


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _of_block(queries: jax.Array, items: Array, k: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    best: Best | None = None
    for block in _slices(len(items), size):
        scores = score_blocks.products(queries, score_blocks.part(items, block))
        found = _best(scores, block.start, min(k, scores.shape[1]))
        if best is not None:
            found = _merged(best, found, k)
        # One block at a time: were they all under way, all of their items would be on the device.
        best = jax.block_until_ready(found)
    assert best is not None
    return np.asarray(best[0]), np.asarray(best[1])


@partial(jax.jit, static_argnames="k")
def _best(scores: jax.Array, first: int, k: int) -> Best:
    """Returns the k best of f32[Q, B] and their indices, counted from `first`."""
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    scores = jnp.where(scores == 0, 0.0, scores)  # XLA sorts -0 behind 0
    values, places = jax.lax.top_k(scores, k)
    return values, places + first


@partial(jax.jit, static_argnames="k")
def _merged(best: Best, other: Best, k: int) -> Best:
    """Returns the k best of both; of equals, `best` come first."""
    values, indices = (jnp.concatenate(both, axis=1) for both in zip(best, other, strict=True))
    values, places = jax.lax.top_k(values, k)
    return values, jnp.take_along_axis(indices, places, axis=1)
