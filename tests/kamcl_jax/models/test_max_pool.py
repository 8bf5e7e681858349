import jax
import jax.numpy as jnp
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


def test_a_nan_is_seen():
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 3, 3, 0] = np.nan
    np.testing.assert_array_equal(
        np.isnan(max_pool(x))[0, :, :, 0], [[False, False], [False, True]]
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("side", [32, 48, 50, 96, 128])
def test_gradients_are_the_library_s_behind_a_normalisation_in_one_program(side, dtype):
    """XLA computes a pooling's input again in the backward pass, and may round it otherwise."""
    x, cotangent = (GENERATOR.normal(size=(2, n, n, 16)).astype(dtype) for n in (side, side // 2))

    def gradient(pool):
        def pooled(x):
            wide = x.astype(jnp.float32)
            normalised = (wide - wide.mean((0, 1, 2))) * jax.lax.rsqrt(wide.var((0, 1, 2)) + 1e-5)
            return jnp.vdot(pool(nn.relu(normalised).astype(dtype)), cotangent)

        return np.asarray(jax.jit(jax.grad(pooled))(x), np.float32)

    ours, expected = gradient(max_pool), gradient(library)
    tolerance = 0.02 if dtype == jnp.bfloat16 else 1e-5
    assert np.linalg.norm(ours - expected) < tolerance * np.linalg.norm(expected)
