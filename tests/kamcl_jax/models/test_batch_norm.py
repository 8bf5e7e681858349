import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kamcl_jax.step.precision import cast_floats

from kamcl_jax.models.batch_norm import BatchNorm, normalise_batch

X = np.random.default_rng(0).normal(3, 2, (4, 3, 3, 5)).astype(np.float32)


def test_training_normalises_with_the_batch_and_keeps_the_unbiased_variance():
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), X, train=True)
    y, updated = norm.apply(variables, X, train=True, mutable=["batch_stats"])
    rows = X.reshape(-1, 5)
    np.testing.assert_allclose(
        y.reshape(-1, 5), (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5), rtol=1e-4, atol=1e-5
    )
    stats = updated["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-5)


def test_evaluation_normalises_with_the_running_statistics():
    norm = BatchNorm()
    variables = {
        "params": {"scale": np.full(5, 2.0), "bias": np.full(5, 1.0)},
        "batch_stats": {"mean": np.full(5, 3.0), "var": np.full(5, 4.0)},
    }
    y = norm.apply(variables, X, train=False)
    np.testing.assert_allclose(y, 1 + 2 * (X - 3) / np.sqrt(4 + 1e-5), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("train", [True, False])
def test_bfloat16_is_normalised_in_float32(train):
    # Far from zero, where a mean and a variance in bfloat16 would be lost.
    x = jnp.asarray(np.random.default_rng(1).normal(30, 1, (64, 8, 8, 3)), jnp.bfloat16)
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


def test_statistics_of_float64_are_float64():
    with jax.enable_x64(True):
        y, _ = BatchNorm().init_with_output(
            jax.random.key(0), jnp.asarray(X, jnp.float64), train=True
        )
        assert y.dtype == jnp.float64
        rows = X.reshape(-1, 5).astype(np.float64)
        expected = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
        np.testing.assert_allclose(y.reshape(-1, 5), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 3, 3, 5), (2, 5)])
def test_gradients_are_those_of_the_formula(shape):
    generator = np.random.default_rng(2)
    x, weight = generator.normal(3, 2, (2, *shape)).astype(np.float32)
    scale, bias = generator.normal(1, 0.3, (2, 5)).astype(np.float32)

    def plain(x, scale, bias):
        axes = tuple(range(x.ndim - 1))
        centred = x - x.mean(axes)
        return centred / jnp.sqrt((centred**2).mean(axes) + 1e-5) * scale + bias

    def loss(normalise):
        return lambda *inputs: jnp.sum(weight * normalise(*inputs) ** 2)

    def ours(*inputs):
        return normalise_batch(*inputs, 1e-5)[0]

    got = jax.grad(loss(ours), (0, 1, 2))(x, scale, bias)
    expected = jax.grad(loss(plain), (0, 1, 2))(x, scale, bias)
    for ours_of, plain_of in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours_of, plain_of, rtol=1e-3, atol=1e-3)
