import jax
import jax.numpy as jnp
import numpy as np
from tiny_model import tiny_config

from examples import uniformity_config
from examples.uniformity_loss import uniformity
from kamcl_jax.config import build, recipe
from kamcl_jax.step.encoding import Encodings


def of(images, texts):
    nothing = jnp.zeros((len(images), 1))
    return uniformity(Encodings(jnp.asarray(images), jnp.asarray(texts), nothing, nothing))


def test_it_is_the_log_of_the_mean_potential_of_pairs_and_pulls_them_apart():
    images, texts = np.random.default_rng(0).normal(size=(2, 6, 5)).astype("f4")

    def potential(x):
        pairs = [np.sum((x[i] - x[j]) ** 2) for i in range(6) for j in range(6) if i != j]
        return np.log(np.mean(np.exp(-2 * np.array(pairs))))

    images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))
    expected = (potential(images) + potential(texts)) / 2
    np.testing.assert_allclose(of(images, texts), expected, rtol=1e-5)
    near = np.array([[1, 0.1], [1, -0.1]], np.float32) / np.sqrt(1.01, dtype=np.float32)
    down = -jax.grad(lambda x: of(x, x))(near)
    assert down[0, 1] > 0 > down[1, 1]


def test_the_config_adds_it():
    config = tiny_config()
    config.loss.extra_terms = uniformity_config.get_config().loss.extra_terms
    build.check_with_devices(config)
    *_, term = recipe.loss_terms(config, steps_per_epoch=1)
    assert (term.name, term.weight) == ("uniformity", config.loss.extra_terms.uniformity.weight)
