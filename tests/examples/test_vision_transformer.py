"""The worked example of another image encoder; `test_extensions.py` trains with it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import tiny_config

from examples.vision_transformer import VisionTransformer
from kamcl_jax.config.encoders import check_encoders, make_model

PATCH = 16


@pytest.fixture(scope="module")
def encoder():
    return VisionTransformer(5, 6, patch_size=PATCH, width=8, depth=2, heads=2)


@pytest.fixture(scope="module")
def images():
    shape = (2, 2 * PATCH, 2 * PATCH, 3)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def variables(encoder, images):
    like = jax.eval_shape(partial(encoder.init, train=False), jax.random.key(0), images)
    generator = np.random.default_rng(0)  # an initialisation takes long to compile
    return jax.tree.map(lambda leaf: 0.3 * generator.normal(size=leaf.shape).astype("f4"), like)


@pytest.fixture(scope="module")
def encode(encoder):
    return jax.jit(partial(encoder.apply, train=True))


def test_places_of_patches_matter_by_their_codes_alone(encode, images, variables):
    halves = np.split(images, 2, axis=1)
    swapped = np.concatenate(halves[::-1], axis=1)  # two rows of patches
    params = variables["params"]
    without = {"params": {**params, "positions": jnp.zeros_like(params["positions"])}}
    for given, alike in ((without, True), (variables, False)):
        one, other = (encode(given, x) for x in (images, swapped))
        assert np.allclose(one[0], other[0], atol=1e-5) == alike


def test_an_image_is_encoded_by_itself(encode, images, variables):
    together, other = encode(variables, images), encode(variables, images * [[[[1]]], [[[0]]]])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b[0], atol=1e-5), together, other)
    assert not np.allclose(together[0][1], other[0][1], atol=1e-3)


def test_blocks_that_are_computed_again_have_the_same_gradient(encoder, images, variables):
    def gradient(module):
        return jax.jit(jax.grad(lambda v: module.apply(v, images, train=True)[0].sum()))(variables)

    pairs = gradient(encoder), gradient(encoder.clone(rematerialise=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *pairs)


def test_it_computes_in_bfloat16_and_trains_where_the_config_names_it():
    config = tiny_config()
    config.image_encoder.module = "examples.vision_transformer:VisionTransformer"
    config.image_encoder.options.depth = 2
    check_encoders(config, jnp.bfloat16)
    made = make_model(config, num_tokens=5, num_concepts=4).image
    assert made == VisionTransformer(4, config.embedding_size, depth=2)
