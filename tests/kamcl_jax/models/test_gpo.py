"""GPO against plain NumPy: sorting, masks, ties, gradients and position codes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kamcl_jax.models import gpo
from kamcl_jax.models.gpo import GPO

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("levels", [3, 10_000])
def test_pool_sorted_equals_a_sort_ties_included(levels):
    x = GENERATOR.integers(0, levels, (2, 5, 9)).astype(np.float32)
    w, c = GENERATOR.random(9).astype(np.float32), GENERATOR.random((2, 5)).astype(np.float32)

    def by_sort(x, w):
        return jnp.einsum("n,bdn->bd", w, -jnp.sort(-x, axis=-1))

    def value_and_gradients(pool):
        value, back = jax.vjp(pool, x, w)
        return value, *back(c)

    found, expected = value_and_gradients(gpo.pool_sorted), value_and_gradients(by_sort)
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "size",
    [
        *({"BLOCK_ENTRIES": entries} for entries in (1, 2 * 4 * 9, 2 * 2 * 9, 2 * 9 * 100)),
        {"COUNT_UP_TO": 8},  # longer lists are sorted
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_ranks_are_those_of_a_stable_sort_in_blocks_of_any_size(monkeypatch, size, dtype):
    for name, value in size.items():
        monkeypatch.setattr(gpo, name, value)
    x = GENERATOR.integers(-3, 4, (2, 5, 9)).astype(np.float32)
    x[0, 0] = [0.0, -0.0, 1, -1, 0.0, np.inf, -np.inf, np.inf, -np.inf]
    ranks = gpo.descending_ranks(jnp.asarray(x, dtype))
    order = np.argsort(-x, axis=-1, kind="stable")
    np.testing.assert_array_equal(ranks, np.argsort(order, axis=-1))


def test_pooling_does_not_depend_on_order_padding_or_neighbours():
    module = GPO()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 2, 3)))
    x = GENERATOR.normal(size=(2, 4, 5)).astype(np.float32)
    alone = module.apply(variables, x)
    shuffled = module.apply(variables, x[..., ::-1])
    np.testing.assert_allclose(shuffled, alone, rtol=1e-5, atol=1e-6)
    padded = np.full((3, 4, 9), 7.0, np.float32)
    padded[:2, :, [0, 3, 4, 6, 8]] = x
    valid = np.zeros((3, 9), bool)
    valid[:2, [0, 3, 4, 6, 8]] = True
    valid[2] = True
    together = module.apply(variables, padded, valid)
    np.testing.assert_allclose(together[:2], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("valid", [None, np.arange(200) < np.array([[150], [200]])])
def test_bfloat16_features_are_pooled_near_float32(valid):
    x = jnp.asarray(GENERATOR.normal(size=(2, 3, 200)), jnp.bfloat16)
    weights = GENERATOR.random(200).astype(np.float32) / 100
    weights = weights if valid is None else np.where(valid, weights, 0)

    def loss(x, weights):
        pooled = gpo.pool_sorted(x, weights, valid)
        return jnp.sum(pooled.astype(jnp.float32)), pooled

    wide = x.astype(jnp.float32)
    (gradient, weights_gradient), pooled = jax.grad(loss, (0, 1), has_aux=True)(x, weights)
    expected, expected_pooled = jax.grad(loss, (0, 1), has_aux=True)(wide, weights)
    assert pooled.dtype == gradient.dtype == jnp.bfloat16
    assert weights_gradient.dtype == jnp.float32
    np.testing.assert_allclose(pooled.astype(jnp.float32), expected_pooled, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(gradient.astype(jnp.float32), expected[0], rtol=2**-8)
    np.testing.assert_allclose(weights_gradient, expected[1], rtol=1e-4, atol=1e-5)


def test_nothing_as_large_as_bfloat16_features_is_kept_in_float32():
    features = jax.ShapeDtypeStruct((2, 3, 50), jnp.bfloat16)
    weights = jax.ShapeDtypeStruct((50,), jnp.float32)
    kept = jax.eval_shape(lambda x, w: jax.vjp(gpo.pool_sorted, x, w)[1], features, weights)
    large = [x.dtype for x in jax.tree.leaves(kept) if x.size >= 2 * 50 * 3]
    assert jnp.bfloat16 in large
    assert jnp.float32 not in large


def test_codes_of_positions_are_sines_and_cosines():
    position, column = np.mgrid[:200, :32]
    angle = position / 10000 ** ((column - column % 2) / 32)
    codes = np.where(column % 2, np.cos(angle), np.sin(angle))
    np.testing.assert_allclose(gpo.position_codes(200, 32), codes, atol=2e-5)
