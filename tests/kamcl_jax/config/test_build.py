from types import SimpleNamespace

import jax
import numpy as np
import pytest
from tiny_model import tiny_config

from kamcl_jax.config import build
from kamcl_jax.config.fields import check_against_checkpoint, flatten
from kamcl_jax.errors import ConfigError
from kamcl_jax.runs import record


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


def test_cudnn_s_attention_is_refused_without_sixteen_bits_or_a_gpu(tiny_published):
    config = tiny_config()
    config.image_size, config.embedding_size = 20, 8
    config.encoders.preset, config.encoders.attention = tiny_published.preset, "cudnn"
    with pytest.raises(ConfigError, match=r"attention='cudnn' needs config.dtype='bfloat16'"):
        build.check_with_devices(config)
    config.dtype = "bfloat16"
    with pytest.raises(ConfigError, match=r"attention='cudnn' runs on NVIDIA's GPUs"):
        build.check_with_devices(config)
    build.check_with_devices(build.on_these_devices(config))


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


def test_a_run_that_does_not_say_which_encoders_retrieve_has_the_trained_ones():
    config = tiny_config()
    trained = flatten(config)
    del trained["evaluation.encoders"]
    stored = record.config_of({"config": trained})
    assert build.retrieving_fields(stored) == {"params": "params", "batch_stats": "batch_stats"}
    check_against_checkpoint(config, trained)
