"""The GPO's kernels for a GPU: its GRU and the ranks of its items, each in a single launch.

A loop of XLA's launches several kernels for each of its rounds, and every launch costs some
microseconds, whatever it computes. Here the loop is inside of the kernel. The kernels are Pallas's
for Triton, which is its way to GPUs of all generations: arrays in registers have powers of two as
lengths, and what is chosen by a number that the compiler does not know is loaded, not cut out.
A CPU interprets the kernels, which is slow and meant for tests.
"""

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import AxisType, PartitionSpec

ITEMS = 64
"""A program ranks this many items of a row; ResNet-18 has 192, three times as many."""

ENTRIES = 2048
"""A program ranks this many items of all its rows: each thread holds sixteen of one row, and as
many counts, so that it compares each rival that it loads sixteen times.
"""

UNROLL = 4
"""So many rivals follow each other without a jump."""

WARPS = 4

MOST_ENTRIES = 2**31 - 1
"""A launch ranks no more values than these: its kernel addresses the counts by 32 bits."""


def count_ahead(values: jax.Array) -> jax.Array:
    """Counts, for each item, the larger ones of its row and the equal ones before it.

    A program of the grid holds a tile of rows x items in registers and goes through the items of
    these rows once: N^2 comparisons a row as in `gpo`, but the values are read from memory about
    once and each count is written once. All comparisons read the same memory, so that every row of
    the result is a permutation, however many of the values are equal.

    Where the mesh is known while it is traced (`Layout.traced`), each device ranks its own samples.
    The compiler cannot share out what it does not know, and would gather the values of all devices.

    Args:
      values: f32[B, D, N], or of another float dtype, without NaN; N is at most 256, as a count is
        a byte.

    Returns:
      u8[B, D, N]; every row (b, d, :) is a permutation of 0..N-1.
    """
    mesh = jax.sharding.get_abstract_mesh()
    shared = set(mesh.axis_types) == {AxisType.Auto} and len(values) % mesh.size == 0
    if not shared or mesh.size == 1:
        return _count_rows(values)
    split = PartitionSpec(mesh.axis_names)
    # A kernel does not say over which axes its result varies.
    share = jax.shard_map(_count_rows, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    return share(values)


def _count_rows(values: jax.Array) -> jax.Array:
    num_items = values.shape[-1]
    width = min(ITEMS, pl.next_power_of_2(num_items))
    height = ENTRIES // width
    rows = values.reshape(-1, num_items)
    # The kernel reads whole tiles. Items that fill up are ranked, too, but are ahead of none: they
    # come last, and none is smaller.
    padding = ((0, -len(rows) % height), (0, -num_items % width))
    padded = jnp.pad(rows, padding, constant_values=-jnp.inf)
    some = MOST_ENTRIES // padded.shape[1] // height * height
    parts = [_launch_ranking(padded[i : i + some], height) for i in range(0, len(padded), some)]
    counts = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
    return counts[: len(rows), :num_items].reshape(values.shape)


def _launch_ranking(padded: jax.Array, height: int) -> jax.Array:
    width = ENTRIES // height
    tiles = padded.shape[1] // width
    return _launch(
        partial(_count_tile, tiles=tiles),
        "count_ahead",
        jax.ShapeDtypeStruct(padded.shape, jnp.uint8),
        # The tiles of the same rows follow each other and find them in the cache.
        (padded.shape[0] // height * tiles,),
        [pl.BlockSpec((height, padded.shape[1]), lambda i: (i // tiles, 0))],
        pl.BlockSpec((height, width), lambda i: (i // tiles, i % tiles)),
        padded,
    )


def _count_tile(values: Any, counts: Any, *, tiles: int) -> None:
    """Ranks the items of one of the tiles of some rows among all items of these rows."""
    width = counts.shape[1]
    start = pl.program_id(0) % tiles * width
    own = values[:, pl.ds(start, width)]
    places = start + jax.lax.broadcasted_iota(jnp.int32, own.shape, 1)
    unroll = min(UNROLL, width)

    def through(first: Any, last: Any, count: jax.Array, is_ahead: Callable[..., Any]) -> jax.Array:
        def some(index, count):
            for place in range(unroll):
                count = add(count, is_ahead(values[:, pl.ds(index * unroll + place, 1)], own))
            return count

        return jax.lax.fori_loop(first // unroll, last // unroll, some, count)

    # A sum of floats that a comparison guards is a single instruction, and on a GPU not one of the
    # units that compare. Counts are small, so it is exact.
    def add(count, ahead):
        return jnp.where(ahead, count + 1, count)

    # Only within the tile does each pair have to be asked which of the two comes first.
    def within(place, count):
        rival = values[:, pl.ds(place, 1)]
        return add(add(count, rival > own), (rival == own) & (place < places))

    count = through(0, start, jnp.zeros(own.shape, jnp.float32), operator.ge)
    count = jax.lax.fori_loop(start, start + width, within, count)
    count = through(start + width, tiles * width, count, operator.gt)
    counts[...] = count.astype(jnp.uint8)


@jax.custom_vjp
def gru_states(
    projected: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    start: jax.Array,
    stop: jax.Array,
) -> jax.Array:
    """Runs small GRUs over several sequences at once and returns their states.

    The equations are those of `torch.nn.GRU`: with the gates' inputs x and what the kernel makes of
    the state h, reset = s(x_r + h_r), update = s(x_z + h_z), candidate = tanh(x_n + reset h_n) and
    h' = (1 - update) candidate + update h. A program of the grid has a GRU and a row; it keeps the
    state and the GRU's kernel in registers.

    Args:
      projected: f32[G, N, 3 H], the inputs of the gates (reset, update, candidate) of G GRUs, which
        all rows share.
      kernel: f32[G, H, 3 H], the recurrent kernels; H is a power of two.
      bias: f32[G, 3 H], the recurrent biases.
      start: i32[G, M], the first step at which a row is present.
      stop: i32[G, M], the step after the last one.

    Returns:
      f32[G, M, N, H]: the states after each step, zero where a row is absent.
    """
    return _gru_forward(projected, kernel, bias, start, stop)[0]


def _gru_forward(projected, kernel, bias, start, stop):
    (count, steps, _), rows, hidden = projected.shape, start.shape[1], kernel.shape[1]
    states = _on_rows(
        _run_row,
        "gpo_gru_forward",
        jax.ShapeDtypeStruct((count, rows, steps, hidden), projected.dtype),
        of_gru=(projected, kernel, bias[:, None]),
        of_row=(start[..., None], stop[..., None]),
    )
    return states, (projected, kernel, bias, start, stop, states)


def _gru_backward(saved, gradient):
    projected, kernel, bias, start, stop, states = saved
    step = jnp.arange(states.shape[2])
    present = (start[..., None] <= step) & (step < stop[..., None])
    before = jnp.pad(states, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
    # All that does not depend on later steps is computed for all of them at once, outside.
    exact = partial(jnp.einsum, precision="highest")
    from_state = exact("gmnh,ghk->gmnk", before, kernel) + bias[:, None, None]
    input_r, input_z, input_n = jnp.split(projected[:, None], 3, axis=-1)
    state_r, state_z, state_n = jnp.split(from_state, 3, axis=-1)
    reset, update = jax.nn.sigmoid(input_r + state_r), jax.nn.sigmoid(input_z + state_z)
    candidate = jnp.tanh(input_n + reset * state_n)
    # What a state's gradient is multiplied by to be that of the candidate's input and so on.
    of_candidate = (1 - update) * (1 - candidate**2)
    of_reset = of_candidate * state_n * reset * (1 - reset)
    of_update = (before - candidate) * update * (1 - update)
    factors = jnp.stack([of_reset, of_update, of_candidate * reset, update], axis=3)
    factors = jnp.where(present[..., None, None], factors, 0)

    totals = _on_rows(
        _run_row_back,
        "gpo_gru_backward",
        jax.ShapeDtypeStruct(states.shape, states.dtype),
        of_gru=(kernel,),
        of_row=(factors, jnp.where(present[..., None], gradient, 0)),
    )
    d_state = totals[:, :, :, None] * factors[:, :, :, :3]
    d_input = d_state.at[:, :, :, 2].set(totals * jnp.where(present[..., None], of_candidate, 0))
    d_state, d_input = (x.reshape(*x.shape[:3], -1) for x in (d_state, d_input))
    d_kernel = exact("gmnh,gmnk->ghk", before, d_state)
    return d_input.sum(1), d_kernel, d_state.sum((1, 2)), None, None


gru_states.defvjp(_gru_forward, _gru_backward)


def _on_rows(
    body: Callable[..., None],
    name: str,
    result: jax.ShapeDtypeStruct,
    of_gru: tuple[jax.Array, ...],
    of_row: tuple[jax.Array, ...],
) -> jax.Array:
    """Runs a kernel's body for each GRU and row: on arrays [G, ...] and [G, M, ...]."""
    per_gru = [
        pl.BlockSpec((None, *x.shape[1:]), lambda g, m, n=x.ndim: (g,) + (0,) * (n - 1))
        for x in of_gru
    ]
    rows: list[Any] = [*of_row, result]
    per_row = [
        pl.BlockSpec((None, None, *x.shape[2:]), lambda g, m, n=x.ndim: (g, m) + (0,) * (n - 2))
        for x in rows
    ]
    return _launch(
        body,
        name,
        result,
        result.shape[:2],
        [*per_gru, *per_row[:-1]],
        per_row[-1],
        *of_gru,
        *of_row,
    )


def _launch(
    body: Callable[..., None],
    name: str,
    result: jax.ShapeDtypeStruct,
    grid: tuple[int, ...],
    in_specs: list[pl.BlockSpec],
    out_specs: pl.BlockSpec,
    *arrays: jax.Array,
) -> jax.Array:
    def call(*arrays: jax.Array, interpret: bool) -> jax.Array:
        return pl.pallas_call(
            body,
            out_shape=result,
            grid=grid,
            in_specs=in_specs,
            out_specs=out_specs,
            interpret=interpret,
            compiler_params=triton.CompilerParams(num_warps=WARPS),
            name=name,
        )(*arrays)

    interpreted, compiled = (partial(call, interpret=here) for here in (True, False))
    return jax.lax.platform_dependent(*arrays, cpu=interpreted, default=compiled)


def _run_row(projected: Any, kernel: Any, bias: Any, start: Any, stop: Any, states: Any) -> None:
    steps, hidden = states.shape
    gates = [pl.ds(gate * hidden, hidden) for gate in range(3)]
    kernels, biases = [kernel[:, gate] for gate in gates], [bias[0, gate] for gate in gates]
    first, end = start[0], stop[0]

    def inputs(t):
        return tuple(projected[jnp.minimum(t, steps - 1), gate] for gate in gates)

    def step(t, carry):
        state, (of_reset, of_update, of_candidate) = carry
        following = inputs(t + 1)  # loaded while this step computes
        column = state[:, None]
        # Sums of products, as a row is far smaller than what a tensor core multiplies.
        reset, update, candidate = (
            jnp.sum(column * by, axis=0) + add for by, add in zip(kernels, biases, strict=True)
        )
        reset = jax.nn.sigmoid(of_reset + reset)
        update = jax.nn.sigmoid(of_update + update)
        candidate = jnp.tanh(of_candidate + reset * candidate)
        new = (1 - update) * candidate + update * state
        new = jnp.where((first <= t) & (t < end), new, 0)
        states[t, :] = new
        return new, following

    jax.lax.fori_loop(0, steps, step, (jnp.zeros(hidden, states.dtype), inputs(0)))


def _run_row_back(kernel: Any, factors: Any, gradient: Any, totals: Any) -> None:
    steps, hidden = totals.shape
    kernels = [kernel[:, pl.ds(gate * hidden, hidden)] for gate in range(3)]

    def inputs(t):
        t = jnp.maximum(t, 0)
        return gradient[t, :], tuple(factors[t, factor, :] for factor in range(4))

    def step(count, carry):
        t = steps - 1 - count
        later, (own, (*of_gates, of_state)) = carry
        following = inputs(t - 1)
        total = own + later
        totals[t, :] = total
        back = total * of_state
        for by, factor in zip(kernels, of_gates, strict=True):
            back += jnp.sum((total * factor)[None, :] * by, axis=1)
        return back, following

    jax.lax.fori_loop(0, steps, step, (jnp.zeros(hidden, totals.dtype), inputs(steps - 1)))
