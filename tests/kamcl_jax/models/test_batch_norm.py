import jax
import numpy as np

from kamcl_jax.models.batch_norm import BatchNorm

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
