"""The k best items of queries among any number of embeddings, in bounded memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from kamcl_jax.ranking.scores import Array, inner_products, take_block

QUERIES_AT_ONCE = 1024
ITEMS_AT_ONCE = 2**15
"""With that many queries, 128 MB of scores; their embeddings take half of it at a width of 512."""

GROUP = 128
"""Only the best of this many scores is looked at first."""

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
      items: f32[N, E], on the host (it may be mapped from a file, and is read in blocks) or a
        device.
      k: How many items to find, at least 1; all of them in order, if there are fewer.
      queries_at_once: How many queries are scored at once.
      items_at_once: How many items are on the device and scored at once, at least k.

    Returns:
      Scores f32[Q, min(k, N)], descending, and the items' indices i32[Q, min(k, N)].
    """
    k, size = min(k, len(items)), max(k, items_at_once)
    if not len(queries) or not len(items):
        return np.zeros((len(queries), k), np.float32), np.zeros((len(queries), k), np.int32)
    found = [
        _best_of_all(take_block(queries, block), items, k, size)
        for block in _slices(len(queries), queries_at_once)
    ]
    scores, indices = zip(*found, strict=True)
    return np.concatenate(scores), np.concatenate(indices)


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _best_of_all(
    queries: jax.Array, items: Array, k: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    best: Best | None = None
    for block in _slices(len(items), size):
        scores = inner_products(queries, take_block(items, block))
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
    find = _best_of_groups if scores.shape[1] > 2 * k * GROUP else jax.lax.top_k
    values, places = find(scores, k)
    return values, places + first


def _best_of_groups(scores: jax.Array, k: int) -> Best:
    """Returns what `jax.lax.top_k` does, in less time for a small k.

    The k best lie in the k groups with the best maxima: before an item of any other group come k
    items that score more, or the same at a lower index.
    """
    beyond = -scores.shape[1] % GROUP
    scores = jnp.pad(scores, ((0, 0), (0, beyond)), constant_values=-jnp.inf)
    groups = scores.reshape(len(scores), -1, GROUP)
    _, chosen = jax.lax.top_k(groups.max(axis=2), k)
    chosen = jnp.sort(chosen, axis=1)  # of equals, those of lower index stay first
    candidates = jnp.take_along_axis(groups, chosen[:, :, None], axis=1)
    values, places = jax.lax.top_k(candidates.reshape(len(scores), -1), k)
    group = jnp.take_along_axis(chosen, places // GROUP, axis=1)
    return values, group * GROUP + places % GROUP


@partial(jax.jit, static_argnames="k")
def _merged(best: Best, other: Best, k: int) -> Best:
    """Returns the k best of both; of equals, `best` come first."""
    values, indices = (jnp.concatenate(both, axis=1) for both in zip(best, other, strict=True))
    values, places = jax.lax.top_k(values, k)
    return values, jnp.take_along_axis(indices, places, axis=1)
