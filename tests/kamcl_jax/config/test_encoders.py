"""The encoders that a config describes: the package's own, another's, or a published model's."""

import re

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from plain_encoders import Colours, Words
from tiny_model import CONCEPTS, WORDS, tiny_config

from kamcl_jax.config import build, encoders, recipe
from kamcl_jax.errors import ConfigError
from kamcl_jax.models.towers import ImageEncoder, TextEncoder
from kamcl_jax.parallel.mesh import make_mesh, put_batch
from kamcl_jax.step.state import state_layout
from kamcl_jax.step.train_step import make_train_step


def config_with(tower="image_encoder", module="plain_encoders:Colours", **options):
    config = tiny_config()
    config[tower].module = module
    config[tower].options = ml_collections.ConfigDict(options)
    return config


def test_a_config_that_names_none_has_the_packages_own():
    config = tiny_config()
    encoders.check_encoders(config, None)
    model = encoders.make_model(config, num_tokens=5, num_concepts=4)
    assert isinstance(model.image, ImageEncoder)
    assert isinstance(model.text, TextEncoder)


def test_another_encoder_gets_the_sizes_and_its_options():
    config = config_with(widths=(5, 7))
    config.text_encoder.module = "plain_encoders:Words"
    encoders.check_encoders(config, None)
    model = encoders.make_model(config, num_tokens=5, num_concepts=4)
    sizes = {"num_concepts": 4, "embedding_size": config.embedding_size}
    assert model.image == Colours(**sizes, widths=(5, 7))
    assert model.text == Words(num_tokens=5, **sizes)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            config_with(module="plain_encoders:Nothing"),
            "config.image_encoder.module is 'plain_encoders:Nothing', which cannot be imported",
        ),
        (
            config_with(depth=3),
            "which cannot be made with num_concepts, embedding_size and "
            "config.image_encoder.options: TypeError",
        ),
        (
            config_with(widths={"dtype": jnp.float32}),
            "config.image_encoder.options must be what JSON can hold, as checkpoints keep them",
        ),
        (
            config_with("text_encoder", "plain_encoders:Colours"),
            "config.text_encoder.module is 'plain_encoders:Colours', which cannot be made with "
            "num_tokens, num_concepts, embedding_size",
        ),
        (
            config_with(module="plain_encoders:NoModule"),
            "which makes an object of type NoModule, no Flax Linen module",
        ),
        (
            config_with(module="plain_encoders:WithoutTrain"),
            "which fails on float32[2, 64, 64, 3]: TypeError",
        ),
        (
            config_with(module="plain_encoders:Swapped"),
            "which returns (float32[2, 12], float32[2, 16]) for 2 inputs, not "
            "(float32[2, 16], float32[2, 12])",
        ),
        (
            config_with(module="plain_encoders:WithACache"),
            "which has variables in the collection 'cache'; only batch_stats and params are",
        ),
        (
            config_with(module="", width=3),
            "config.image_encoder.options has 'width', but config.image_encoder.module names no",
        ),
    ],
)
def test_another_encoder_that_cannot_be_is_refused_in_one_sentence(config, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)) as refused:
        encoders.check_encoders(config, None)
    assert "\n" not in str(refused.value)


def test_outputs_of_a_weak_type_are_floats_like_others():
    encoders.check_encoders(config_with(module="plain_encoders:Constant"), None)


def test_embeddings_and_concepts_stay_in_float32_whatever_the_encoder_computes_in():
    encoders.check_encoders(config_with(), jnp.bfloat16)
    config = config_with(module="plain_encoders:InHalfPrecision")
    encoders.check_encoders(config, None)
    with pytest.raises(ConfigError, match=r"returns \(bfloat16\[2, 16\], bfloat16\[2, 12\]\)"):
        encoders.check_encoders(config, jnp.bfloat16)


@pytest.mark.parametrize(
    ("tower", "field", "value"),
    [
        ("image_encoder", "image_encoder.pretrained", "resnet18.pth"),
        ("image_encoder", "image_encoder.rematerialise", True),
        ("image_encoder", "momentum_coverage", "release"),
        ("text_encoder", "text_encoder.pretrained", "skip_thoughts"),
        ("text_encoder", "caption_padding", "release"),
    ],
)
def test_what_only_the_packages_own_can_do_is_not_asked_of_another(tower, field, value):
    module = {"image_encoder": "plain_encoders:Colours", "text_encoder": "plain_encoders:Words"}
    config = config_with(tower, module[tower])
    encoders.check_encoders(config, None)
    config.update_from_flattened_dict({field: value})
    sentence = rf"config.{field}={value!r} is for the package's own {tower}"
    with pytest.raises(ConfigError, match=sentence):
        encoders.check_encoders(config, None)
    config[tower].module = ""
    encoders.check_encoders(config, None)


def test_trying_an_encoder_computes_nothing():
    encoders.check_encoders(config_with(widths=(10**6, 10**6)), None)  # 4 TB of weights


def test_without_statistics_a_step_is_shared_out_and_computes_in_bfloat16(tiny):
    def losses(mesh, **fields):
        config = config_with()
        config.text_encoder.module = "plain_encoders:Words"
        config.update(fields)
        model = encoders.make_model(config, WORDS, CONCEPTS)

        def make():
            return build.make_state(config, model, tiny.optimizer, CONCEPTS)

        abstract = jax.eval_shape(make)
        assert abstract.batch_stats == abstract.key_batch_stats == {}
        layout = state_layout(mesh, abstract, fsdp_min_size=16, queue="sharded")
        settings = recipe.make_settings(config, steps_per_epoch=1)
        step = make_train_step(model, tiny.optimizer, settings, layout)
        state = jax.jit(make, out_shardings=layout.state)()
        for number in range(2):
            state, metrics = step(state, put_batch(layout, tiny.batch(number)))
        return jax.device_get({n: metrics[n] for n in ("triplet", "contrastive", "alignment")})

    expected = losses(make_mesh(devices=jax.devices()[:1]))
    others = losses(make_mesh(2, 2), dtype="bfloat16", gradient_accumulation=2)
    for name, value in others.items():
        np.testing.assert_allclose(value, expected[name], rtol=0.03, err_msg=name)
