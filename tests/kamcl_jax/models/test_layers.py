"""Batch normalisation, convolutions and max pooling against formulas and the library's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from kamcl_jax.models import layers
from kamcl_jax.models.layers import (
    BatchNorm,
    convolve,
    convolve_by_patches,
    max_pool,
    normalise_batch,
)
from kamcl_jax.step.encoding import cast_floats

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(3, 2, (4, 3, 3, 5)).astype(np.float32)
ROWS = X.reshape(-1, 5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_training_normalises_with_the_batch_and_keeps_the_unbiased_variance(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        x = jnp.asarray(X, dtype)
        variables = BatchNorm().init(jax.random.key(0), x, train=True)
        y, updated = BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])
    rows = ROWS.astype(dtype)
    expected = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    assert y.dtype == dtype
    rtol, atol = (1e-10, 1e-12) if dtype == jnp.float64 else (1e-4, 1e-5)
    np.testing.assert_allclose(y.reshape(-1, 5), expected, rtol=rtol, atol=atol)
    stats = updated["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("train", [True, False])
def test_bfloat16_is_normalised_in_float32(train):
    # Far from zero, where a mean and a variance in bfloat16 would be lost.
    x = jnp.asarray(GENERATOR.normal(30, 1, (64, 8, 8, 3)), jnp.bfloat16)
    params = {"scale": jnp.ones(3), "bias": jnp.zeros(3)}
    stats = {"mean": jnp.full(3, 29.9), "var": jnp.full(3, 1.1)}

    def apply(x, params):
        variables = {"params": params, "batch_stats": stats}
        return BatchNorm().apply(variables, x, train=train, mutable=["batch_stats"])

    y, updated = apply(x, cast_floats(params, jnp.bfloat16))
    expected, expected_updated = apply(x.astype(jnp.float32), params)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=2**-8)
    for name, statistic in updated["batch_stats"].items():
        assert statistic.dtype == jnp.float32
        np.testing.assert_allclose(statistic, expected_updated["batch_stats"][name], rtol=1e-5)


@pytest.fixture(params=["a CPU", "an accelerator"])
def moments_of(request, monkeypatch):
    """Has this device take the moments as another one does."""
    if request.param == "an accelerator":
        monkeypatch.setattr(layers, "_moments", layers._moments_in_one_pass)


@pytest.mark.usefixtures("moments_of")
@pytest.mark.parametrize("shape", [(4, 3, 3, 5), (2, 5)])
def test_the_gradients_of_a_normalisation_are_those_of_the_formula(shape):
    x, weight = GENERATOR.normal(3, 2, (2, *shape)).astype(np.float32)
    scale, bias = GENERATOR.normal(1, 0.3, (2, 5)).astype(np.float32)

    def plain(x, scale, bias):
        axes = tuple(range(x.ndim - 1))
        centred = x - x.mean(axes)
        return centred / jnp.sqrt((centred**2).mean(axes) + 1e-5) * scale + bias

    def gradients(normalise):
        def loss(*inputs):
            return jnp.sum(weight * normalise(*inputs) ** 2)

        return jax.grad(loss, (0, 1, 2))(x, scale, bias)

    # Moments around zero, and near the mean of 3.
    for shift in (0.0, 2.9):
        ours = gradients(lambda *inputs, at=shift: normalise_batch(*inputs, jnp.array(at), 1e-5)[0])
        for got, expected in zip(ours, gradients(plain), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("moments_of")
def test_what_is_constant_normalises_to_the_bias_wherever_its_moments_are_taken():
    x, ones = np.full((4, 3, 3, 2), 70.1, np.float32), np.ones(2, np.float32)
    for shift in (0.0, 70.0):
        normalised, mean, variance = normalise_batch(x, ones, 2 * ones, shift * ones, 1e-5)
        np.testing.assert_allclose(mean, 70.1, rtol=1e-6)
        assert np.all(variance >= 0)
        np.testing.assert_allclose(normalised, 2, atol=1e-2)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(4, 3, 1), (5, 3, 2), (8, 3, 2), (4, 1, 2)])
def test_patches_compute_the_convolution_and_its_gradients(size, kernel, stride):
    x = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, 3, 4))

    def value_and_gradients(function):
        def loss(x, weights):
            return jnp.sum(jnp.sin(function(x, weights, stride)))

        return function(x, weights, stride), jax.grad(loss, argnums=(0, 1))(x, weights)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        value_and_gradients(convolve_by_patches),
        value_and_gradients(convolve),
    )


def library_pool(x):
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 7, 9, 2), (2, 1, 1, 2), (1, 2, 5, 1)])
@pytest.mark.parametrize("levels", [0, 3, 10_000])
def test_pooling_and_its_gradients_are_the_library_s_ties_included(shape, levels):
    x = GENERATOR.integers(-levels, levels + 1, shape).astype(np.float32)
    expected, expected_back = jax.vjp(library_pool, x)
    pooled, back = jax.vjp(max_pool, x)
    np.testing.assert_array_equal(pooled, expected)
    gradient = GENERATOR.normal(size=pooled.shape).astype(np.float32)
    np.testing.assert_allclose(back(gradient)[0], expected_back(gradient)[0], atol=1e-6)


def test_pooling_shows_a_nan():
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

    ours, expected = gradient(max_pool), gradient(library_pool)
    tolerance = 0.02 if dtype == jnp.bfloat16 else 1e-5
    assert np.linalg.norm(ours - expected) < tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5), (4, 7, 6), (64, 65, 8)])
def test_a_dense_layer_and_its_gradients_are_the_librarys_with_sums_in_float32(shape, dtype):
    x = np.random.default_rng(1).normal(1, 1, shape).astype("f")
    own, plain = layers.Dense(9, layers.linear_init, layers.uniform_init(0.5)), nn.Dense(9)
    params = own.init(jax.random.key(0), x)

    def run(module, dtype):
        @jax.jit
        def loss(params, x):
            y = module.apply(*cast_floats((params, x), dtype))
            assert y.dtype == dtype
            return jnp.mean(jnp.square(y.astype(jnp.float32))), y

        (_, y), gradient = jax.value_and_grad(loss, has_aux=True)(params, x)
        return y, gradient["params"]

    (y, found), (expected, _) = run(own, dtype), run(plain, dtype)
    # XLA leaves out the rounding of the product to 16 bits before the bias is added in 32.
    rounding = 0.0 if dtype == jnp.float32 else float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(y.astype("f"), expected.astype("f"), rtol=rounding, atol=rounding)
    tolerance = 1e-5 if dtype == jnp.float32 else 3e-2
    for name, leaf in run(plain, jnp.float32)[1].items():
        distance = np.linalg.norm(found[name] - leaf) / np.linalg.norm(leaf)
        assert distance < tolerance, name
