"""A Pallas kernel that counts ranks on a GPU in registers instead of in many passes over memory.

It is written for Triton, Pallas's way to GPUs of all generations: blocks are powers of two, and
what is chosen by a number that the compiler doesn't know is loaded, not cut out of registers.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

ITEMS = 64
"""A program ranks this many items of a row; ResNet-18 has 192, three times as many."""

ENTRIES = 1024
"""A program ranks this many items of all its rows: each thread holds eight, and as many counts.

Rows are then fewer than threads: each thread can load a rival by itself, in one access for all
threads of a row.
"""

WARPS = 4


def count_ahead(keys: jax.Array, *, interpret: bool = False) -> jax.Array:
    """Counts, for each item, the larger ones of its row and the equal ones before it.

    A program of the grid holds a tile of rows x items in registers and goes through the items of
    these rows once: N^2 comparisons a row as in `gpo`, but the keys are read from memory about once
    and each count is written once.

    The compiler cannot partition it. On several devices, call it inside `jax.shard_map` with the
    batch axis split as the features' is, and D and N whole. `check_vma=False` is needed there, as
    the kernel does not say over which axes its result varies.

    Args:
      keys: i32[B, D, N], or of another integer dtype; 1 <= N <= 256, as a count is a byte.
      interpret: Whether to run as ordinary XLA operations, slowly, on any device.

    Returns:
      u8[B, D, N]; every row (b, d, :) is a permutation of 0..N-1.
    """
    num_items = keys.shape[-1]
    width = min(ITEMS, pl.next_power_of_2(num_items))
    height = ENTRIES // width
    rows = keys.reshape(-1, num_items)
    # The kernel reads whole tiles. The padding is ranked, too, but rivals nobody and is cut off.
    padded = jnp.pad(rows, ((0, -len(rows) % height), (0, -num_items % width)))
    counts = pl.pallas_call(
        partial(_count_tile, num_items=num_items),
        out_shape=jax.ShapeDtypeStruct(padded.shape, jnp.uint8),
        grid=(padded.shape[0] // height, padded.shape[1] // width),
        in_specs=[pl.BlockSpec((height, padded.shape[1]), lambda row, _: (row, 0))],
        out_specs=pl.BlockSpec((height, width), lambda row, item: (row, item)),
        interpret=interpret,
        compiler_params=triton.CompilerParams(num_warps=WARPS),
        name="count_ahead",
    )(padded)
    return counts[: len(rows), :num_items].reshape(keys.shape)


def _count_tile(keys, counts, *, num_items: int) -> None:
    """Ranks the items of one tile among `num_items`, all of those in its rows but the padding."""
    width = counts.shape[1]
    start = pl.program_id(1) * width
    end = jnp.minimum(start + width, num_items)
    own = keys[:, pl.ds(start, width)]
    places = start + jax.lax.broadcasted_iota(jnp.int32, own.shape, 1)

    def other(place):
        return keys[:, pl.ds(place, 1)]

    # Only within the tile does each pair have to be asked which of the two comes first.
    def before(place, count):
        return count + (other(place) >= own).astype(jnp.int32)

    def within(place, count):
        rival = other(place)
        ahead = (rival > own) | ((rival == own) & (place < places))
        return count + ahead.astype(jnp.int32)

    def after(place, count):
        return count + (other(place) > own).astype(jnp.int32)

    count = jnp.zeros(own.shape, jnp.int32)
    count = jax.lax.fori_loop(0, start, before, count)
    count = jax.lax.fori_loop(start, end, within, count)
    count = jax.lax.fori_loop(end, num_items, after, count)
    counts[...] = count.astype(jnp.uint8)
