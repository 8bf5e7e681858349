"""The generalized pooling operator (GPO): a learned, length-dependent average of sorted features.

Chen et al., "Learning the Best Pooling Strategy for Visual Semantic Embedding" (CVPR 2021); "AGG"
in KAMCL's architecture figure.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.export import is_symbolic_dim

from kamcl_jax.models import layers

COUNT_UP_TO = 256
"""Up to this many items, places are counted, O(N^2) but in wide vectors; longer lists are sorted.

It is at most 256, as a count is kept in a byte.
"""

BLOCK_ENTRIES = 2**21
"""A CPU counts this many entries at once: its caches hold them, and memory is far slower."""


def position_codes(num_items: int, width: int) -> np.ndarray:
    """Returns sinusoidal codes of positions 0..num_items-1 (Vaswani et al. 2017), f32[N, width].

    Even columns are sines, odd ones cosines, of angular frequency 10000^(-column / width), where
    the width is even. They are constants, made on the host in single precision: the same on every
    device and at every dtype of the parameters.
    """
    # PyTorch's rounding of exponents, frequencies and angles, so that its weights mean the same.
    exponents = np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(10000.0) / width)
    frequencies = np.exp(exponents, dtype=np.float64).astype(np.float32)
    angles = (np.arange(num_items, dtype=np.float32)[:, None] * frequencies).astype(np.float64)
    codes = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(num_items, width)
    return codes.astype(np.float32)


def descending_ranks(values: jax.Array, kernel: str = "counting") -> jax.Array:
    """Returns each item's place in the descending order along the last axis, ties by index.

    Up to `COUNT_UP_TO` items the larger ones are counted, which on a CPU takes a nineteenth of the
    time of sorting the low-level features of ResNet-18 (192 items of 4096 x 8 columns).

    Args:
      values: f32[B, D, N], without NaN.
      kernel: How up to `COUNT_UP_TO` items are counted; the result is the same. "counting" leaves
        it to XLA, with a pass over memory for each item. "pallas" is a GPU's kernel, see
        `gpo_kernels`; a CPU interprets it, which is slow and meant for tests.

    Returns:
      u8[B, D, N], or i32 for longer lists; every row (b, d, :) is a permutation of 0..N-1.
    """
    if values.shape[-1] > COUNT_UP_TO:
        return sorted_ranks(values)
    if kernel == "pallas":
        return _kernels().count_ahead(values)
    keys = _ordered_integers(values)
    return jax.lax.platform_dependent(keys, cpu=_count_by_blocks, default=_count)


def _kernels() -> ModuleType:
    # Imported here: Pallas is experimental, and a training without it should not depend on it.
    from kamcl_jax.models import gpo_kernels

    return gpo_kernels


def sorted_ranks(values: jax.Array) -> jax.Array:
    """Ranks lists of any length by two sorts: f32[B, D, N] -> i32[B, D, N]."""
    order = jnp.argsort(values, axis=-1, descending=True, stable=True)
    return jnp.argsort(order, axis=-1)


def _ordered_integers(values: jax.Array) -> jax.Array:
    """Returns integers in the order of the floats: i32 for f32, one of their width for others."""
    width = jnp.dtype(values.dtype).itemsize * 8
    bits = jax.lax.bitcast_convert_type(values, f"int{width}")
    least, largest = jnp.iinfo(bits.dtype).min, jnp.iinfo(bits.dtype).max
    bits = jnp.where(bits == least, 0, bits)  # as -0.0 equals 0.0
    return jnp.where(bits < 0, bits ^ largest, bits)


def _count(keys: jax.Array) -> jax.Array:
    """Counts, for each item of i32[B, D, N], the larger ones and the equal ones before it."""
    num_items = keys.shape[-1]
    items = jnp.arange(num_items)

    def count(item, counts):
        key = jax.lax.dynamic_index_in_dim(keys, item, axis=-1)
        # One comparison: among integers, "at least" is "greater than one less".
        ahead = key > keys - (item < items)
        return counts + ahead.astype(jnp.uint8)

    return jax.lax.fori_loop(0, num_items, count, jnp.zeros(keys.shape, jnp.uint8))


def _count_by_blocks(keys: jax.Array) -> jax.Array:
    """Does `_count` a block of D at a time; B stays whole, as it may lie on several devices."""
    batch, rows, items = keys.shape
    if any(map(is_symbolic_dim, keys.shape)):  # exported for any sizes, and for one device
        return jax.lax.map(_count, keys)
    blocks = min(rows, -(-keys.size // BLOCK_ENTRIES))
    size = -(-rows // blocks)
    padded = jnp.pad(keys, ((0, 0), (0, blocks * size - rows), (0, 0)))

    def block(start):
        return _count(jax.lax.dynamic_slice_in_dim(padded, start, size, axis=1))

    counts = jax.lax.map(block, size * jnp.arange(blocks))
    return jnp.moveaxis(counts, 0, 1).reshape(batch, blocks * size, items)[:, :rows]


def pool_sorted(
    features: jax.Array,
    weights: jax.Array,
    valid: jax.Array | None = None,
    kernel: str = "counting",
) -> jax.Array:
    """Sorts each feature's valid items in descending order and sums them with weights.

    Args:
      features: f32[B, D, N], D features of N items.
      weights: f32[N], one for each place in the order, or f32[B, N] where samples differ. With
        `valid`, weights past a sample's number of valid items must be 0.
      valid: bool[B, N], the items that take part; all of them, if None.
      kernel: See `descending_ranks`.

    Returns:
      f32[B, D], the sum over k of weights[k] * (k-th largest valid value of the feature). It is
      multiplied in the features' dtype, summed in the wider of both dtypes and returned in the
      features'.
    """
    ordered_by = jax.lax.stop_gradient(features)
    if valid is not None:
        ordered_by = jnp.where(valid[:, None, :], ordered_by, -jnp.inf)
    ranks = descending_ranks(ordered_by, kernel)
    item_weights = (
        _at_places(weights, ranks) if weights.ndim == 1 else jax.vmap(_at_places)(weights, ranks)
    )
    # The features are by far the largest array here: no product or gradient is wider than they are.
    weighted = item_weights.astype(features.dtype) * features
    wide = jnp.promote_types(weights.dtype, features.dtype)
    return jnp.sum(weighted, axis=-1, dtype=wide).astype(features.dtype)


def _at_places(weights: jax.Array, ranks: jax.Array) -> jax.Array:
    return jnp.asarray(weights).at[ranks].get(mode="promise_in_bounds")


class GPO(nn.Module):
    """Generalized pooling: weights from a bidirectional GRU over position codes.

    The weights depend on the number of items alone, never on the data, so they are computed once
    per number of items and not per sample.
    """

    code_width: int = 32  # of the position codes, even
    hidden_width: int = 32  # of each direction
    temperature: float = 0.1  # divides the scores before the softmax
    kernel: str = "counting"  # see `descending_ranks`

    def setup(self):
        """Declares the parameters."""
        shape = (self.code_width, self.hidden_width)
        self.forward_gru = GRUDirection(*shape)
        self.backward_gru = GRUDirection(*shape)
        self.score = nn.Dense(1, use_bias=False, kernel_init=layers.linear_init)

    def weights(self, num_items: int, any_length: bool = False) -> jax.Array:
        """Returns the pooling weights of lists of N items, float32 at least: f32[1, N].

        With `any_length` they are f32[N, N]: row m is for lists whose first m + 1 items are there.
        A row sums to 1 over these and is 0 after them.
        """
        return weights_together([Pooling(self, num_items, any_length)])[0]

    def gates(self, num_items: int) -> tuple["Gates", "Gates"]:
        """Returns those of the forward and of the backward direction at N positions."""
        most = COUNT_UP_TO if is_symbolic_dim(num_items) else num_items
        codes = jnp.asarray(position_codes(most, self.code_width))[:num_items]
        return self.forward_gru(codes), self.backward_gru(codes)

    def weigh(self, states: jax.Array, present: jax.Array) -> jax.Array:
        """Makes weights f32[M, N] of the mean states of both directions, f32[M, N, H]."""
        scores = self.score(states)[..., 0] / self.temperature
        return jax.nn.softmax(scores, axis=-1, where=present)

    def __call__(
        self,
        features: jax.Array,
        valid: jax.Array | None = None,
        weights: jax.Array | None = None,
    ) -> jax.Array:
        """Pools D features over N items: f32[B, D, N] -> f32[B, D], in the features' dtype.

        Args:
          features: f32[B, D, N].
          valid: bool[B, N], which items exist, at least one a sample; None: all of them.
          weights: What the method of that name returns for N, and for any length with `valid`;
            None computes them.
        """
        if weights is None:
            weights = self.weights(features.shape[-1], any_length=valid is not None)
        if valid is None:
            return pool_sorted(features, weights[0], kernel=self.kernel)
        return pool_sorted(features, weights[valid.sum(axis=1) - 1], valid, self.kernel)


class Pooling(NamedTuple):
    """What `GPO.weights` is asked for."""

    gpo: GPO
    num_items: int
    any_length: bool = False

    @property
    def counts(self) -> jax.Array:
        """The items that each row has, i32[M]."""
        first = 1 if self.any_length else self.num_items
        return jnp.arange(first, self.num_items + 1)

    @property
    def present(self) -> jax.Array:
        """Which those are, bool[M, N]."""
        return jnp.arange(self.num_items) < self.counts[:, None]


def weights_together(poolings: Sequence[Pooling]) -> list[jax.Array]:
    """Returns the weights of several poolings of one kind, which a GPU computes in one launch."""
    gpo = poolings[0].gpo
    # The kernel's arrays have powers of two as lengths.
    if gpo.kernel == "pallas" and gpo.hidden_width.bit_count() == 1:
        states = run_by_kernel([(each.gpo.gates(each.num_items), each.counts) for each in poolings])
    else:
        states = [_run_both(each.gpo.gates(each.num_items), each.present) for each in poolings]
    return [
        each.gpo.weigh((ahead + behind) / 2, each.present)
        for each, (ahead, behind) in zip(poolings, states, strict=True)
    ]


def _run_both(gates: tuple["Gates", "Gates"], present: jax.Array) -> tuple[jax.Array, jax.Array]:
    forward, backward = gates
    # The forward direction never sees the end, so one run serves every length.
    everywhere = jnp.ones((1, present.shape[1]), bool)
    return run(forward, everywhere), run(backward, present, reverse=True)


class Gates(NamedTuple):
    """What one direction of a `torch.nn.GRU` of width H needs to run over N positions."""

    inputs: jax.Array  # f32[N, 3 H]: of the gates reset, update, candidate; multiplied and biased
    kernel: jax.Array  # f32[H, 3 H], the recurrent one
    bias: jax.Array  # f32[3 H], the recurrent one


class GRUDirection(nn.Module):
    """The parameters of one direction of a `torch.nn.GRU`."""

    input_width: int
    hidden_width: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> Gates:
        """Makes the gates of f32[N, input_width], float32 at least whatever the parameters'."""
        gates = 3 * self.hidden_width
        init = layers.uniform_init(self.hidden_width**-0.5)
        input_kernel = self.param("input_kernel", init, (self.input_width, gates))
        input_bias = self.param("input_bias", init, (gates,))
        recurrent_kernel = self.param("recurrent_kernel", init, (self.hidden_width, gates))
        recurrent_bias = self.param("recurrent_bias", init, (gates,))
        # In float32: rounding adds up over the many positions, and the widths are tiny.
        wide = jnp.promote_types(input_kernel.dtype, jnp.float32)
        projected = inputs @ input_kernel.astype(wide) + input_bias.astype(wide)
        return Gates(projected, recurrent_kernel.astype(wide), recurrent_bias.astype(wide))


def run(gates: Gates, present: jax.Array, reverse: bool = False) -> jax.Array:
    """Runs one direction over one sequence that is cut at several lengths.

    Args:
      gates: Those of the direction at the N positions.
      present: bool[M, N], the positions that row m has. Absent ones leave the state at zero.
      reverse: Whether to begin at the last position.

    Returns:
      f32[M, N, H], the state after each position, in the order of the inputs.
    """

    def step(state, item):
        from_input, here = item
        input_r, input_z, input_n = jnp.split(from_input, 3)
        state_r, state_z, state_n = jnp.split(state @ gates.kernel + gates.bias, 3, -1)
        reset = jax.nn.sigmoid(input_r + state_r)
        update = jax.nn.sigmoid(input_z + state_z)
        candidate = jnp.tanh(input_n + reset * state_n)
        state = jnp.where(here[:, None], (1 - update) * candidate + update * state, 0)
        return state, state

    start = jnp.zeros((present.shape[0], gates.kernel.shape[0]), gates.inputs.dtype)
    _, states = jax.lax.scan(step, start, (gates.inputs, present.T), reverse=reverse)
    return jnp.moveaxis(states, 0, 1)


def run_by_kernel(
    sequences: Sequence[tuple[tuple[Gates, Gates], jax.Array]],
) -> list[tuple[jax.Array, jax.Array]]:
    """Does `run` for both directions over several sequences at once, by a GPU's kernel.

    Args:
      sequences: For each of them the gates of the forward and of the backward direction at its N
        positions, and how many of these each of its M rows has, i32[M]: the first ones.

    Returns:
      For each sequence the states of both directions, f32[M, N, H]; absent positions are zero.
    """
    steps = max(gates[0].inputs.shape[0] for gates, _ in sequences)
    rows = max(len(counts) for _, counts in sequences)
    inputs, kernels, biases, starts, stops = [], [], [], [], []
    for (forward, backward), counts in sequences:
        num_items = forward.inputs.shape[0]
        # The kernel runs one way only: the backward direction gets its inputs in reverse.
        for direction in (forward, backward._replace(inputs=backward.inputs[::-1])):
            inputs.append(jnp.pad(direction.inputs, ((0, steps - num_items), (0, 0))))
            kernels.append(direction.kernel)
            biases.append(direction.bias)
        # Rows that fill up are absent at every step.
        counts = jnp.pad(counts, (0, rows - len(counts)))
        starts += [jnp.zeros_like(counts), num_items - counts]
        stops += [counts, jnp.full_like(counts, num_items)]
    arrays = (jnp.stack(x) for x in (inputs, kernels, biases, starts, stops))
    states = _kernels().gru_states(*arrays)
    found = []
    for index, ((forward, _), counts) in enumerate(sequences):
        own = states[2 * index : 2 * index + 2, : len(counts), : forward.inputs.shape[0]]
        found.append((own[0], own[1, :, ::-1]))
    return found
