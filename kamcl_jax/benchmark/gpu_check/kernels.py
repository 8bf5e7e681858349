"""Part (b), first half: each kernel beside its plain twin, on the device that is here."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kamcl_jax.benchmark import trials
from kamcl_jax.benchmark.gpu_check.task import Sizes, Task
from kamcl_jax.models import gpo_kernels, skip_thoughts
from kamcl_jax.models.gpo import Gates, descending_ranks, pool_sorted, run, sorted_ranks
from kamcl_jax.models.layers import normalise_batch


class Pair(NamedTuple):
    """A fast function and its plain twin.

    Attributes:
      kernel: The fast one; it takes arrays, and returns a pytree of arrays.
      twin: The plain one.
      inputs: Sizes -> the arrays that both take.
      tolerance: The largest difference, as a share of the largest entry of an array of the twin's.
    """

    kernel: Callable[..., Any]
    twin: Callable[..., Any]
    inputs: Callable[[Sizes], tuple[np.ndarray, ...]]
    tolerance: float = 0.0


def features(sizes: Sizes) -> np.ndarray:
    """Returns f32[B, D, N] as a ResNet's stages leave them, rectified: many ties at zero."""
    normal = np.random.default_rng(0).standard_normal(sizes.values, np.float32)
    return np.maximum(normal, 0)


def weights(sizes: Sizes) -> np.ndarray:
    """Returns f32[N], which sum to 1."""
    drawn = np.random.default_rng(1).random(sizes.values[-1], np.float32)
    return drawn / drawn.sum()


def gru_inputs(sizes: Sizes) -> tuple[np.ndarray, ...]:
    """Returns what `gpo_kernels.gru_states` takes of G GRUs: inputs, kernels and biases."""
    count, steps, hidden = sizes.states
    shapes = [(count, steps, 3 * hidden), (count, hidden, 3 * hidden), (count, 3 * hidden)]
    drawn = (np.random.default_rng(2).standard_normal(shape, np.float32) for shape in shapes)
    projected, kernel, bias = drawn
    return projected, kernel / hidden**0.5, bias


def rows_of(projected: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the first step of rows, and the one after the last, for all lengths: i32[G, N]."""
    count, steps, _ = projected.shape
    stop = jnp.broadcast_to(jnp.arange(1, steps + 1, dtype=jnp.int32), (count, steps))
    return jnp.zeros_like(stop), stop


def gru_by_kernel(projected: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Runs GRUs over sequences of all lengths, f32[G, M, N, H], in one launch."""
    return gpo_kernels.gru_states(projected, kernel, bias, *rows_of(projected))


def gru_by_scan(projected: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Does what `gru_by_kernel` does, step by step."""
    steps = projected.shape[1]

    def one(projected, kernel, bias, stop):
        return run(Gates(projected, kernel, bias), jnp.arange(steps) < stop[:, None])

    return jax.vmap(one)(projected, kernel, bias, rows_of(projected)[1])


def words_inputs(sizes: Sizes) -> tuple[np.ndarray, ...]:
    """Returns what `skip_thoughts.gru_states` takes first: recurrent kernels and gates' inputs."""
    words, batch, hidden = sizes.words
    shapes = [(3, hidden, hidden), (words, 3, batch, hidden)]
    drawn = (np.random.default_rng(3).standard_normal(shape, np.float32) for shape in shapes)
    kernel, projected = drawn
    return kernel / hidden**0.5, projected


def words_by(states: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Returns what runs the words' GRU over captions of all lengths, with dropout."""

    def run_words(kernel: jax.Array, projected: jax.Array) -> jax.Array:
        words, gates, batch, hidden = projected.shape
        mask = jax.random.bernoulli(jax.random.key(0), 0.75, (gates, batch, hidden)) / 0.75
        return states(kernel, projected, mask, 1 + jnp.arange(batch) % words)

    return run_words


def words_by_scan(
    kernel: jax.Array, projected: jax.Array, mask: jax.Array, lengths: jax.Array
) -> jax.Array:
    """Does what `skip_thoughts.gru_states` says, word by word."""

    def step(state, item):
        word, (of_reset, of_update, of_candidate) = item
        reset, update, candidate = jnp.einsum("gbh,ghk->gbk", mask * state, kernel)
        reset, update = jax.nn.sigmoid(of_reset + reset), jax.nn.sigmoid(of_update + update)
        new = (1 - update) * jnp.tanh(of_candidate + reset * candidate) + update * state
        new = jnp.where((word < lengths)[:, None], new, 0)
        return new, new

    items = jnp.arange(len(projected)), projected
    return jax.lax.scan(step, jnp.zeros_like(projected[0, 0]), items)[1]


def normalised(maps: jax.Array) -> jax.Array:
    """Normalises maps as the ResNet does, with moments around a shift that is not the mean.

    The sine is there since the squares of what is normalised have a sum without a gradient.
    """
    ones = jnp.ones(maps.shape[-1])
    return jnp.sin(normalise_batch(maps, ones, ones, 0.5 * ones, 1e-5)[0])


def normalised_by_formula(maps: jax.Array) -> jax.Array:
    """Does what `normalised` does, as the formula says."""
    axes = tuple(range(maps.ndim - 1))
    return jnp.sin((maps - maps.mean(axes)) / jnp.sqrt(maps.var(axes) + 1e-5) + 1)


def with_gradient(function: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Returns what computes a function, and the gradients of the sum of its results' squares."""

    def both(*inputs: jax.Array) -> Any:
        value, pull_back = jax.vjp(function, *inputs)
        return value, pull_back(2 * value)

    return both


PAIRS: dict[str, Pair] = {
    "ranks, Pallas or counting by XLA": Pair(
        kernel=partial(descending_ranks, kernel="pallas"),
        twin=descending_ranks,
        inputs=lambda sizes: (features(sizes),),
    ),
    "ranks, counting by XLA or sorting": Pair(
        kernel=descending_ranks,
        twin=sorted_ranks,
        inputs=lambda sizes: (features(sizes),),
    ),
    "pooling with gradient, Pallas or counting by XLA": Pair(
        kernel=with_gradient(partial(pool_sorted, kernel="pallas")),
        twin=with_gradient(pool_sorted),
        inputs=lambda sizes: (features(sizes), weights(sizes)),
        tolerance=3e-4,  # a weight's gradient is a sum of 400,000 numbers in any order
    ),
    "GRU of the pooling, Pallas or step by step": Pair(
        kernel=with_gradient(gru_by_kernel),
        twin=with_gradient(gru_by_scan),
        inputs=gru_inputs,
        tolerance=1e-4,
    ),
    "GRU of the words, unrolled or word by word": Pair(
        kernel=with_gradient(words_by(skip_thoughts.gru_states)),
        twin=with_gradient(words_by(words_by_scan)),
        inputs=words_inputs,
        tolerance=1e-4,
    ),
    "batch normalisation, one pass or the formula": Pair(
        kernel=with_gradient(normalised),
        twin=with_gradient(normalised_by_formula),
        inputs=lambda sizes: (
            np.random.default_rng(4).normal(1, 2, sizes.maps).astype(np.float32),
        ),
        tolerance=1e-4,
    ),
}
"""Every kernel with its twin. A new kernel is a new entry."""


def measure(task: Task) -> None:
    """Compares and times all of `PAIRS`."""
    for name, pair in PAIRS.items():
        task.attempt(name, partial(compare, pair, task.sizes))


def compare(pair: Pair, sizes: Sizes) -> dict[str, Any]:
    """Returns how far a kernel is from its twin, and how long each takes, the two in turn."""
    inputs = jax.device_put(pair.inputs(sizes))
    with jax.default_matmul_precision("highest"):  # a GPU would multiply in TF32
        kernel, twin = (
            jax.jit(function).lower(*inputs).compile() for function in (pair.kernel, pair.twin)
        )
    error = largest_error(kernel(*inputs), twin(*inputs))
    budget = trials.Budget(rounds=sizes.trials, seconds=0, most_rounds=sizes.trials)
    timings = trials.alternate(
        {
            "kernel": lambda: jax.block_until_ready(kernel(*inputs)),
            "twin": lambda: jax.block_until_ready(twin(*inputs)),
        },
        budget,
    )
    return {
        "shapes": [list(array.shape) for array in inputs],
        "error": error,
        "tolerance": pair.tolerance,
        "agrees": error <= pair.tolerance,
        "kernel_seconds": timings["kernel"].median,
        "twin_seconds": timings["twin"].median,
    }


def largest_error(found: Any, expected: Any) -> float:
    """Returns the largest difference of two pytrees, as a share of the array's largest entry.

    Where one has a number and the other has none (NaN), it is infinite.
    """

    def error(one: jax.Array, other: jax.Array) -> jax.Array:
        one, other = one.astype(jnp.float32), other.astype(jnp.float32)
        scale = jnp.maximum(jnp.abs(other).max(), jnp.finfo(jnp.float32).tiny)
        largest = jnp.abs(one - other).max() / scale
        return jnp.where(jnp.isnan(largest), jnp.inf, largest)

    return max(map(float, jax.tree.leaves(jax.tree.map(error, found, expected))))
