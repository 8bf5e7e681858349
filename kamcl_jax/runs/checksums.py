"""Checksums of a train state: what is read is what was written."""

from typing import Any

import jax
import jax.numpy as jnp

from kamcl_jax.step.state import TrainState


def checksums(state: TrainState | dict[str, Any]) -> dict[str, int]:
    """Returns a sum of the bits of each of a state's arrays, modulo 2**32.

    Each word counts an odd number of times that depends on its place, so that a change of any one
    is found, and two that changed places are. The sum depends neither on the order of summation
    nor on the devices.

    Args:
      state: whole, or some of its fields by name.
    """
    fields = state if isinstance(state, dict) else vars(state)
    leaves = jax.tree_util.tree_leaves_with_path(dict(fields))
    sums = jax.device_get(_sums_of_bits([leaf for _, leaf in leaves]))
    names = [f"{path[0].key}{jax.tree_util.keystr(path[1:])}" for path, _ in leaves]
    return {name: int(value) for name, value in zip(names, sums, strict=True)}


@jax.jit
def _sums_of_bits(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_sum_of_bits(leaf) for leaf in leaves]


def _sum_of_bits(leaf: jax.Array) -> jax.Array:
    words = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    place, stride = jnp.uint32(0), 1
    for axis in reversed(range(leaf.ndim)):
        place += jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= leaf.shape[axis]
    return jnp.sum(words * (2 * place + 1), dtype=jnp.uint32)
