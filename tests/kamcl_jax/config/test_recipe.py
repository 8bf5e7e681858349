import jax
import numpy as np
import optax
import pytest
from tiny_model import tiny_config

from kamcl_jax.config import build, encoders, recipe
from kamcl_jax.config.fields import Decides, decides, flatten
from kamcl_jax.errors import ConfigError
from kamcl_jax.step import optimizer


def first_moments(clip_norm, gradients):
    config = tiny_config()
    config.optimizer.clip_norm = clip_norm
    chosen = recipe.make_optimizer(config, steps_per_epoch=1)
    _, state = chosen.update(gradients, chosen.init(gradients))
    return optax.tree.get(state, "mu")


def test_clipping_acts_on_the_gradients_that_are_used():
    gradients = {"a": np.array([30.0, 0.0], "f"), "b": np.array([[40.0]], "f")}
    for clip_norm, factor in ((5.0, 0.1), (0.0, 1.0), (100.0, 1.0)):
        expected = jax.tree.map(lambda g, scale=factor: 0.1 * scale * g, gradients)
        moments = first_moments(clip_norm, gradients)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), moments, expected)


def test_the_rate_of_a_config_is_warmed_up_and_ends_with_the_last_epoch():
    config = tiny_config()
    config.num_epochs, config.optimizer.learning_rate = 5, 1e-3
    plain = recipe.learning_rate(config, steps_per_epoch=4)
    assert plain(0) == plain(3) == 1e-3
    config.optimizer.update({"schedule": "cosine", "warmup_steps": 4})
    rate = recipe.learning_rate(config, steps_per_epoch=4)
    np.testing.assert_allclose([rate(0), rate(3), rate(20)], [2.5e-4, 1e-3, 0], atol=1e-10)
    assert decides("num_epochs", flatten(config)) is Decides.TRAINING


def test_weight_decay_shrinks_matrices_alone():
    config = tiny_config()
    config.optimizer.update({"weight_decay": 0.1, "learning_rate": 1e-2})
    chosen = recipe.make_optimizer(config, steps_per_epoch=1)
    params = {"kernel": np.ones((2, 3), "f"), "bias": np.ones(3, "f"), "scale": np.float32(1)}
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = chosen.update(zeros, chosen.init(params), params)
    np.testing.assert_allclose(updates["kernel"], np.full((2, 3), -1e-3), rtol=1e-5)
    assert not np.any(updates["bias"])
    assert not np.any(updates["scale"])


def test_a_config_that_names_muon_gets_it_with_the_rate_of_each_step():
    config = tiny_config()
    config.optimizer.update({"name": "muon", "warmup_steps": 10, "weight_decay": 0.1})
    chosen = recipe.make_optimizer(config, steps_per_epoch=1)
    rate = recipe.learning_rate(config, steps_per_epoch=1)
    of_rate_one = optimizer.muon(1.0, config.optimizer.epsilon, 0.1)
    params = {"kernel": np.eye(3, dtype="f"), "bias": np.ones(3, "f")}
    state, other = chosen.init(params), of_rate_one.init(params)
    for step in range(2):
        updates, state = chosen.update(params, state, params)
        expected, other = of_rate_one.update(params, other, params)
        for name, update in updates.items():
            np.testing.assert_allclose(update, rate(step) * expected[name], rtol=1e-5, atol=1e-9)
    assert rate(1) == 2 * rate(0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positives": "concepts"}, "needs config.loss.negatives='batch'"),
        ({"positives": "equal", "mask_false_negatives": True}, "do not go together"),
    ],
)
def test_losses_that_contradict_each_other_are_refused(changes, words):
    config = tiny_config()
    config.loss.update(changes)
    with pytest.raises(ConfigError, match=words):
        build.check_with_devices(config)


@pytest.mark.parametrize("preset", ["ViT-B-32", "ViT-B-16-SigLIP"])
def test_a_clip_keeps_its_limit_beside_the_loss_of_siglip_which_has_none(preset):
    config = encoders.config_of_published(__file__, preset)
    config.loss.sigmoid_weight = 1.0
    expected = None if "SigLIP" in preset else 100.0
    assert recipe.make_settings(config, steps_per_epoch=1).largest_scale == expected
