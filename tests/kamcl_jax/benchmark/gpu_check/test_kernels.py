"""Kernels beside their twins."""

import jax.numpy as jnp
import numpy as np
import pytest

from kamcl_jax.benchmark.gpu_check import kernels
from kamcl_jax.benchmark.gpu_check.task import TOY


@pytest.mark.parametrize("name", kernels.PAIRS)
def test_kernels_agree_with_their_twins(name):
    found = kernels.compare(kernels.PAIRS[name], TOY)
    assert found["agrees"], found["error"]
    assert found["kernel_seconds"] > 0
    assert found["twin_seconds"] > 0


def test_a_kernel_with_a_wrong_gradient_is_found():
    def wrong(x):
        return jnp.sin(jnp.where(x > 1.5, 2 * x - 1.5, x))

    pair = kernels.Pair(
        kernels.with_gradient(wrong),
        kernels.with_gradient(jnp.sin),
        lambda sizes: (np.array([0.5, 1.0, 1.5, 1.6], np.float32),),
        tolerance=0.2,  # the values alone would pass
    )
    found = kernels.compare(pair, TOY)
    assert 0.2 < found["error"] < 2
    assert not found["agrees"]


def test_a_number_that_is_none_is_an_infinite_error():
    found, expected = jnp.array([1.0, jnp.nan]), jnp.array([1.0, 2.0])
    assert kernels.largest_error(found, expected) == np.inf
    assert kernels.largest_error((expected, 1.5 * expected), (expected, expected)) == 0.5
