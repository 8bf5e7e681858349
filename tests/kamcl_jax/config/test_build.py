from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from tiny_model import tiny_config

from kamcl_jax.config import build, fields
from kamcl_jax.config.fields import check_against_checkpoint, flatten
from kamcl_jax.errors import ConfigError
from kamcl_jax.runs import record


def first_moments(clip_norm, gradients):
    config = tiny_config()
    config.optimizer.clip_norm = clip_norm
    optimizer = build.make_optimizer(config, steps_per_epoch=1)
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
    config.image_encoder.pooling_kernel = "pallas"
    fitting = build.on_these_devices(config)
    assert build.check_with_devices(fitting).size == jax.device_count()
    fitting.batch_size = 7  # evaluation fills up its batches
    assert build.check_with_devices(fitting, trains=False).size == jax.device_count()
    assert config.mesh.data == 64
    config.image_encoder.pooling_kernel = "counting"
    assert build.on_these_devices(config).image_encoder.pooling_kernel == "counting"


def test_a_kernel_of_a_gpu_is_refused_where_there_is_none():
    config = tiny_config()
    config.image_encoder.pooling_kernel = "pallas"
    with pytest.raises(ConfigError, match=r"pooling_kernel='pallas' runs on GPUs"):
        build.check_with_devices(config)


def test_all_poolings_of_both_towers_get_a_gpu_s_kernels():
    config = tiny_config()
    hopper, amd, turing = (
        SimpleNamespace(platform="gpu", compute_capability=of) for of in ("9.0", "gfx90a", "7.5")
    )

    def kernels(device, pooling_kernel="auto"):
        config.image_encoder.pooling_kernel = pooling_kernel
        model = build.make_model(config, 5, 4, device)
        return {tower.pooling_kernel for tower in (model.image, model.text)}

    assert kernels(hopper) == kernels(amd) == {"pallas"}
    # Triton compiles for no older ones of NVIDIA's.
    assert kernels(turing) == kernels(SimpleNamespace(platform="tpu")) == {"counting"}
    assert kernels(None) == kernels(jax.devices()[0]) == {"counting"}
    assert kernels(hopper, "counting") == {"counting"}
    config.image_encoder.pooling_kernel = "pallas"
    model = build.make_model(config, num_tokens=5, num_concepts=4)
    shapes = jax.ShapeDtypeStruct((2, 64, 64, 3), np.float32)
    tokens, lengths = np.ones((2, 7), np.int32), np.ones(2, np.int32)
    made = jax.make_jaxpr(
        lambda x: model.init_with_output(
            jax.random.key(0), x, tokens, lengths, np.ones((2, 4), np.float32), train=False
        )
    )(shapes)
    # Five poolings in two towers; each kernel is compiled and, for a CPU, interpreted.
    assert str(made).count("name=count_ahead") == 2 * 5
    assert str(made).count("name=gpo_gru_forward") == 2 * 2


def test_the_rate_of_a_config_is_warmed_up_and_ends_with_the_last_epoch():
    config = tiny_config()
    config.num_epochs, config.optimizer.learning_rate = 5, 1e-3
    plain = build.learning_rate(config, steps_per_epoch=4)
    assert plain(0) == plain(3) == 1e-3
    config.optimizer.update({"schedule": "cosine", "warmup_steps": 4})
    rate = build.learning_rate(config, steps_per_epoch=4)
    np.testing.assert_allclose([rate(0), rate(3), rate(20)], [2.5e-4, 1e-3, 0], atol=1e-10)
    assert fields.decides("num_epochs", flatten(config)) is fields.Decides.TRAINING


def test_weight_decay_shrinks_matrices_alone():
    config = tiny_config()
    config.optimizer.update({"weight_decay": 0.1, "learning_rate": 1e-2})
    optimizer = build.make_optimizer(config, steps_per_epoch=1)
    params = {"kernel": np.ones((2, 3), "f"), "bias": np.ones(3, "f"), "scale": np.float32(1)}
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], np.full((2, 3), -1e-3), rtol=1e-5)
    assert not np.any(updates["bias"])
    assert not np.any(updates["scale"])


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


def test_a_run_that_does_not_say_which_encoders_retrieve_has_the_trained_ones():
    config = tiny_config()
    trained = flatten(config)
    del trained["evaluation.encoders"]
    stored = record.config_of({"config": trained})
    assert build.retrieving_fields(stored) == {"params": "params", "batch_stats": "batch_stats"}
    check_against_checkpoint(config, trained)
