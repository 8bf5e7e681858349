import jax
import numpy as np
import optax
from conftest import tiny_config

from kamcl_jax import from_config


def first_moments(clip_norm, gradients):
    config = tiny_config()
    config.optimizer.clip_norm = clip_norm
    optimizer = from_config.make_optimizer(config, steps_per_epoch=1)
    _, state = optimizer.update(gradients, optimizer.init(gradients))
    return optax.tree.get(state, "mu")


def test_clipping_acts_on_the_gradients_that_are_used():
    gradients = {"a": np.array([30.0, 0.0], "f"), "b": np.array([[40.0]], "f")}
    for clip_norm, factor in ((5.0, 0.1), (0.0, 1.0), (100.0, 1.0)):
        expected = jax.tree.map(lambda g, scale=factor: 0.1 * scale * g, gradients)
        moments = first_moments(clip_norm, gradients)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), moments, expected)


def test_a_config_of_other_devices_fits_these():
    config = tiny_config()
    config.mesh.update({"data": 64, "fsdp": 16, "queue": "sharded"})
    fitting = from_config.on_these_devices(config)
    assert from_config.check_with_devices(fitting).size == jax.device_count()
    fitting.batch_size = 7  # evaluation fills up its batches
    assert from_config.check_with_devices(fitting, trains=False).size == jax.device_count()
    assert config.mesh.data == 64
