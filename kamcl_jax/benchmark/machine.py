"""What the machine can do at best: a large matrix product, and a copy of a large array."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from kamcl_jax.benchmark.trials import Action

MATMUL, COPY = "matrix product", "copy"

_SIDE = {"cpu": 2048}
_COPIED = {"cpu": 2**28}
_ACCELERATOR_SIDE, _ACCELERATOR_COPIED = 8192, 2**30


def matmul_side() -> int:
    """Returns the side of the square matrices that are multiplied."""
    return _SIDE.get(jax.default_backend(), _ACCELERATOR_SIDE)


def copied_bytes() -> int:
    """Returns the size of the array that is copied; far more than any cache holds."""
    return _COPIED.get(jax.default_backend(), _ACCELERATOR_COPIED)


def actions(dtype: DTypeLike) -> dict[str, Action]:
    """Returns the two actions to time, on one device.

    Args:
      dtype: of the product, the one that the encoders compute in.
    """
    side = matmul_side()
    matrix = jax.random.normal(jax.random.key(0), (side, side)).astype(dtype)
    array = jnp.ones(copied_bytes() // 4, jnp.float32)
    multiply = jax.jit(lambda x: x @ x)
    # A sign change, as XLA may leave out a mere copy; both read and write all of the array.
    copy = jax.jit(jnp.negative)
    return {
        MATMUL: lambda: jax.block_until_ready(multiply(matrix)),
        COPY: lambda: jax.block_until_ready(copy(array)),
    }


def flops_per_second(matmul_seconds: float) -> float:
    """Returns the rate of the matrix product, a multiplication and an addition counting as two."""
    return 2 * matmul_side() ** 3 / matmul_seconds


def bytes_per_second(copy_seconds: float) -> float:
    """Returns the rate of the copy, what is read and what is written both counting."""
    return 2 * copied_bytes() / copy_seconds
