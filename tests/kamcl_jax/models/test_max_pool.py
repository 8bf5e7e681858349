import jax
import numpy as np
import pytest
from flax import linen as nn

from kamcl_jax.models.max_pool import max_pool

GENERATOR = np.random.default_rng(0)


def library(x):
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 7, 9, 2), (2, 1, 1, 2), (1, 2, 5, 1)])
@pytest.mark.parametrize("levels", [3, 10_000])
def test_values_and_gradients_are_the_library_s_ties_included(shape, levels):
    x = GENERATOR.integers(-levels, levels, shape).astype(np.float32)
    expected, expected_back = jax.vjp(library, x)
    pooled, back = jax.vjp(max_pool, x)
    np.testing.assert_array_equal(pooled, expected)
    gradient = GENERATOR.normal(size=pooled.shape).astype(np.float32)
    np.testing.assert_allclose(back(gradient)[0], expected_back(gradient)[0], atol=1e-6)


def test_every_gradient_arrives_once():
    x = np.zeros((1, 6, 6, 1), np.float32)
    _, back = jax.vjp(max_pool, x)
    assert float(back(np.ones((1, 3, 3, 1), np.float32))[0].sum()) == 9
