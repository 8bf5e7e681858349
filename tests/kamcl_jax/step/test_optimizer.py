"""Muon for kernels and Adam for the rest; what decays; updates that get smaller with depth."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_clip
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from tiny_clip import LENGTHS, TINY

from kamcl_jax.models.clip.towers import dual_encoder
from kamcl_jax.models.towers import DualEncoder, ImageEncoder, TextEncoder
from kamcl_jax.step import optimizer
from kamcl_jax.step.finetuning import Finetuning, split

RATE, EPSILON = 1e-2, 1e-8


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("f")


def steps(transformation, params, gradients):
    """The updates of one step after the other."""

    @jax.jit
    def step(state, gradient):
        return transformation.update(gradient, state, params)

    state, updates = transformation.init(params), []
    for gradient in gradients:
        update, state = step(state, gradient)
        updates.append(jax.device_get(update))
    return updates


def of_muon(gradients, weight_decay=0.0, params=None):
    params = params or jax.tree.map(np.zeros_like, gradients[0])
    return steps(optimizer.muon(RATE, EPSILON, weight_decay), params, gradients)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (7, 7)])
def test_a_kernels_update_is_as_long_in_every_direction_as_adams_usually_is(shape):
    (update,) = of_muon([{"kernel": draw(0, *shape)}])
    lengths = np.linalg.svd(update["kernel"], compute_uv=False)
    usual = 0.2 * RATE * np.sqrt(max(shape))
    # Newton and Schulz' iteration brings singular values near 1, not to it.
    assert np.all((lengths > 0.5 * usual) & (lengths < 1.3 * usual))
    before = np.linalg.svd(draw(0, *shape), compute_uv=False)
    assert np.ptp(lengths) / lengths.max() < np.ptp(before) / before.max()


def test_an_update_goes_down_and_keeps_the_directions_of_its_gradient():
    gradient = draw(1, 6, 4)
    (update,) = of_muon([{"kernel": gradient}])
    left, _, right = np.linalg.svd(gradient, full_matrices=False)
    turned = left.T @ update["kernel"] @ right.T
    np.testing.assert_allclose(turned - np.diag(np.diagonal(turned)), 0, atol=1e-6)
    assert np.all(np.diagonal(turned) < 0)


def test_convolutions_are_matrices_of_their_patches_and_stacks_are_many():
    gradients = [draw(seed, 3, 3, 4, 8) for seed in (0, 1)]
    flat = of_muon([{"kernel": gradient.reshape(36, 8)} for gradient in gradients])
    for update, expected in zip(
        of_muon([{"kernel": gradient} for gradient in gradients]), flat, strict=True
    ):
        found = update["kernel"].reshape(36, 8)
        np.testing.assert_allclose(found, expected["kernel"], rtol=1e-4, atol=1e-7)
    stack = draw(2, 3, 6, 5)
    (together,) = of_muon([{"input_kernel": stack}])
    for number, gradient in enumerate(stack):
        (alone,) = of_muon([{"kernel": gradient}])
        np.testing.assert_allclose(
            together["input_kernel"][number], alone["kernel"], rtol=1e-4, atol=1e-7
        )


def test_the_heads_of_flaxs_attention_are_side_by_side_in_one_matrix():
    attention = nn.MultiHeadDotProductAttention(2)
    params = jax.eval_shape(attention.init, jax.random.key(0), draw(0, 1, 3, 6))["params"]
    gradients = {name: {"kernel": draw(1, *params[name]["kernel"].shape)} for name in params}
    assert gradients["query"]["kernel"].shape == (6, 2, 3)
    (together,) = of_muon([gradients])
    for name, gradient in gradients.items():
        matrix = {"kernel": gradient["kernel"].reshape(6, 6)}
        (alone,) = of_muon([matrix])
        found = together[name]["kernel"].reshape(6, 6)
        np.testing.assert_allclose(found, alone["kernel"], rtol=1e-4, atol=1e-7)


def test_what_is_no_kernel_is_updated_by_adam():
    gradients = [
        {"embedding": draw(seed, 9, 4), "bias": draw(seed, 5), "input_bias": draw(seed, 3, 5)}
        for seed in range(3)
    ]
    adam = optax.adam(RATE, eps=EPSILON, nesterov=True)
    expected = steps(adam, jax.tree.map(np.zeros_like, gradients[0]), gradients)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), of_muon(gradients), expected
    )


def test_kernels_alone_decay():
    params = {"kernel": np.ones((2, 3), "f"), "embedding": np.ones((2, 3), "f")}
    zeros = jax.tree.map(np.zeros_like, params)
    (update,) = of_muon([zeros], weight_decay=0.1, params=params)
    np.testing.assert_allclose(update["kernel"], np.full((2, 3), -0.1 * RATE), rtol=1e-5)
    assert not np.any(update["embedding"])


def abstract_params(model, images, tokens):
    inputs = images, tokens, LENGTHS, np.zeros((3, 5), np.float32)
    return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), *inputs)["params"]


def clips_params(name="clip"):
    return abstract_params(dual_encoder(TINY[name], 5), *tiny_clip.inputs(TINY[name]))


DECAYS = {
    "clip": {
        "image/tower/patches/kernel": True,
        "image/tower/positions": True,
        "image/tower/class_embedding": False,
        "image/tower/norm_before/scale": False,
        "image/tower/transformer/block_0/attention/qkv/kernel": True,
        "image/tower/transformer/block_0/attention/qkv/bias": False,
        "image/tower/projection/kernel": True,
        "image/concept_head/gate": False,
        "text/tower/tokens/embedding": True,
        "text/tower/positions": True,
        "logit_scale": False,
    },
    "clip-resnet": {
        "image/tower/conv1/kernel": True,
        "image/tower/bn1/scale": False,
        "image/tower/bn1/bias": False,
        "image/tower/pooling/positions": True,
    },
    "siglip": {
        "image/tower/patches/bias": False,
        "image/tower/query": True,
        "text/tower/projection/bias": False,
        "logit_scale": False,
        "logit_bias": False,
    },
    "own": {
        "image/resnet/conv1/kernel": True,
        "image/resnet/bn1/scale": False,
        "image/resnet/bn1/bias": False,
        "text/skip_thoughts/embedding": True,
        "text/skip_thoughts/input_kernel": True,
        "text/skip_thoughts/input_bias": False,
        "text/skip_thoughts/recurrent_kernel": True,
        "text/state_linear/bias": False,
        "logit_scale": False,
    },
}
"""Model -> path -> whether AdamW's weight decay shrinks the parameter."""


def own_params():
    own = DualEncoder(ImageEncoder(5, 8, width=4), TextEncoder(12, 5, 8, 4, 6), 0.07)
    return abstract_params(own, jnp.zeros((3, 64, 64, 3)), jnp.ones((3, 4), jnp.int32))


@pytest.mark.parametrize("name", DECAYS)
def test_matrices_and_embeddings_decay_and_neither_biases_nor_scales_do(name):
    params = own_params() if name == "own" else clips_params(name)
    found = flatten_dict(optimizer.decays(params), sep="/")
    assert {path: found.get(path) for path in DECAYS[name]} == DECAYS[name]
    assert not any(found[path] for path in found if path.endswith(("bias", "scale")))
    assert all(found[path] for path in found if path.endswith("kernel"))


def test_adapters_decay():
    trained, _ = jax.eval_shape(
        partial(split, Finetuning("lora")), clips_params(), jax.random.key(0)
    )
    found = flatten_dict(optimizer.decays(trained))
    assert all(decays for path, decays in found.items() if path[-1].startswith("lora"))


BY_HAND = {
    "logit_scale": 1,
    "image/concept_head/linear/kernel": 1,
    "image/tower/norm/scale": 1,
    "image/tower/projection/kernel": 1,
    "image/tower/transformer/block_1/mlp/up/kernel": 0.5,
    "image/tower/transformer/block_0/attention/qkv/bias": 0.25,
    "text/tower/transformer/block_0/attention/qkv/bias": 0.5,
    "image/tower/norm_before/bias": 0.125,
    "image/tower/class_embedding": 0.125,
    "text/tower/tokens/embedding": 0.25,
}
"""Path -> how much of an update is left, each block having half.

The image tower has two blocks, the text tower one.
"""


def halved_by_block(updates):
    transformation = optimizer.scaled(partial(optimizer.rate_factors, layer_decay=0.5))
    state = transformation.init(updates)
    assert not jax.tree.leaves(state)
    return jax.jit(lambda updates: transformation.update(updates, state)[0])(updates)


def test_what_is_new_has_a_learning_rate_of_its_own():
    factors = optimizer.rate_factors(clips_params(), 0.5, new_rate=10)
    for path, factor in flatten_dict(factors, sep="/").items():
        assert (factor == 10) == ("concept_head" in path)


def test_updates_get_smaller_with_every_block_below():
    ones = jax.tree.map(lambda leaf: np.full(leaf.shape, 3, jnp.bfloat16), clips_params())
    found = flatten_dict(halved_by_block(ones), sep="/")
    assert found.keys() == flatten_dict(ones, sep="/").keys()
    for path, factor in BY_HAND.items():
        assert found[path].dtype == jnp.bfloat16
        np.testing.assert_array_equal(found[path].astype(np.float32), 3 * factor)


@pytest.mark.parametrize("trains", ["heads", "blocks", "lora"])
def test_a_part_that_trains_gets_the_rates_that_it_has_in_the_whole(trains):
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), clips_params())
    whole = flatten_dict(halved_by_block(params))
    trained, _ = split(Finetuning(trains), params, jax.random.key(0))
    ones = jax.tree.map(np.ones_like, trained)
    for path, update in flatten_dict(halved_by_block(ones)).items():
        place = path[:-1] if path[-1].startswith("lora") else path
        assert set(np.unique(update)) == set(np.unique(whole[place]))


def test_a_smaller_update_is_that_of_a_smaller_learning_rate():
    deep, top = ("image", "transformer", "block_0", "kernel"), ("image", "block_1", "kernel")
    params = unflatten_dict({path: draw(0, 4, 4) for path in (deep, top)})
    gradient = jax.tree.map(lambda x: x**3, params)
    scaled = optax.chain(
        optax.adamw(RATE, weight_decay=0.3, mask=optimizer.decays),
        optimizer.scaled(partial(optimizer.rate_factors, layer_decay=0.5)),
    )
    found = steps(scaled, params, [gradient] * 2)
    for path, factor in ((deep, 0.25), (top, 0.5)):
        expected = steps(optax.adamw(factor * RATE, weight_decay=0.3), params, [gradient] * 2)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(flatten_dict(a)[path], flatten_dict(b)[path], rtol=1e-5)
