"""The release's train state and ours: every number comes back, and each has its own place."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_weights import random_like
from tiny_model import tiny_config

from kamcl_jax.config import build, recipe
from kamcl_jax.errors import PretrainedError
from kamcl_jax.step import state as train_state
from kamcl_jax.torch_release import state_dict
from kamcl_jax.torch_release.state_dict import (
    CONCEPT_BIAS,
    EMBEDDING,
    from_state_dict,
    to_state_dict,
)

WORDS, SIZE, STEP = 9, 32, 7
UNUSED = re.compile(r"\.resnet\.fc\.|extract_feature\.linear\.|high_module\.gpo\.|^(mlp|im|tx)\.")


def make_config():
    """A tiny model with the release's equalities of widths."""
    config = tiny_config()
    config.seed = 3
    config.embedding_size = config.num_concepts = SIZE
    config.image_encoder.width = SIZE // 8
    return config


@pytest.fixture(scope="module")
def config():
    return make_config()


def random_state(config, num_concepts=SIZE):
    """A state after STEP steps; the optimiser's moments are those of none."""
    like = build.abstract_state(config, WORDS, num_concepts)
    opt_state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like.opt_state)
    adam, schedule = opt_state
    state = random_like(like.replace(opt_state=()))
    return state.replace(
        step=np.int32(STEP),
        opt_state=(adam, schedule._replace(count=np.int32(STEP))),
        image_queue=state.image_queue.replace(pointer=np.int32(8)),
        text_queue=state.text_queue.replace(pointer=np.int32(15)),
        rng=train_state.step_rng(config.seed),
    )


@pytest.fixture(scope="module")
def state(config):
    # The release knows no skipped updates.
    return random_state(config).replace(skipped=jnp.int32(0))


@pytest.fixture(scope="module")
def tensors(config):
    """A state_dict of random numbers, the unused ones too."""
    generator = np.random.default_rng(1)
    shapes = state_dict.tensor_shapes(config, WORDS, SIZE)
    tensors = {n: generator.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    counts = {name: np.int64(STEP) for name in tensors if name.endswith("num_batches_tracked")}
    return {**tensors, **counts, "queue_ptr_im": np.array([15]), "queue_ptr_tx": np.array([0])}


def test_a_state_comes_back_from_the_releases_names(config, state):
    read = from_state_dict(to_state_dict(state), config)
    assert jax.tree.structure(read) == jax.tree.structure(state)
    for (path, got), expected in zip(
        jax.tree.leaves_with_path(read), jax.tree.leaves(state), strict=True
    ):
        np.testing.assert_array_equal(got, expected, jax.tree_util.keystr(path), strict=True)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(read))


def test_a_state_dict_comes_back_from_our_state(config, tensors):
    state = from_state_dict(tensors, config)
    written = to_state_dict(state)
    assert list(written) == list(tensors)
    unused = {name for name in tensors if UNUSED.search(name)}
    for name, tensor in written.items():
        expected = tensors[name]
        if name in unused:
            fill = 1 if name.endswith((".1.weight", ".running_var")) else 0
            expected = np.full_like(expected, fill)
        np.testing.assert_array_equal(tensor, expected, name)
        whole = name.startswith("queue_ptr") or name.endswith("num_batches_tracked")
        assert tensor.dtype == (np.int64 if whole else np.float32)
        assert tensor.shape == np.shape(tensors[name])
    no_place = {n for n in tensors if n.startswith("queue_ptr") or n.endswith("batches_tracked")}
    assert state_dict.used_names(state) == set(tensors) - unused - no_place
    # What the release never uses may be absent.
    assert len(unused) == 2 * 13 + 4 + 2 * 7
    used = {name: tensor for name, tensor in tensors.items() if name not in unused}
    jax.tree.map(np.testing.assert_array_equal, from_state_dict(used, config), state)


@pytest.mark.parametrize(("step", "rate"), [(4, 1e-3), (7, 5e-4), (11, 2.5e-4)])
def test_the_learning_rate_goes_on_and_the_moments_start_anew(config, tensors, step, rate):
    # With one step an epoch: 1e-3, halved at epoch indices 5 and 11.
    count = "visualmodelQ.extract_feature.resnet.bn1.num_batches_tracked"
    state = from_state_dict({**tensors, count: np.int64(step)}, config)
    assert state.step == step
    one_leaf = {"a": jnp.zeros(2)}
    opt_state = jax.tree.map(
        lambda params: one_leaf if isinstance(params, dict) else params,
        state.opt_state,
        is_leaf=lambda node: isinstance(node, dict),
    )
    optimizer = recipe.make_optimizer(config, steps_per_epoch=1)
    updates, _ = optimizer.update({"a": jnp.array([3.0, -20.0])}, opt_state)
    # Adam's first update is the sign of the gradient, if it knows that it is the first.
    np.testing.assert_allclose(updates["a"], [-rate, rate], rtol=1e-5)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)


@pytest.mark.parametrize(
    ("name", "tensor", "sentence"),
    [
        (EMBEDDING, None, f"it has no tensor {EMBEDDING}: it is no checkpoint of KAMCL"),
        (CONCEPT_BIAS, None, f"it lacks the tensor {CONCEPT_BIAS}"),
        (
            "queue_im",
            np.zeros((32, 24), "f"),
            r"queue_im of it has the shape \[32, 24\]; the model",
        ),
        ("textmodelK.gpo.extra", np.zeros(1), "it is of another model: it has the tensor textm"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(config, tensors, name, tensor, sentence):
    changed = {**tensors, name: tensor}
    changed = {name: tensor for name, tensor in changed.items() if tensor is not None}
    with pytest.raises(PretrainedError, match=sentence):
        from_state_dict(changed, config, "it")


def test_a_state_with_fewer_concepts_than_the_embedding_is_wide_is_not_written(config):
    sentence = "this one has 12 concepts and an embedding of 32"
    with pytest.raises(PretrainedError, match=sentence):
        to_state_dict(random_state(config, num_concepts=12))
