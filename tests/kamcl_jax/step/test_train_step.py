"""One step of KAMCL: momentum, queues, schedule, gradients, sharding."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from linear_towers import Towers, create_state
from tiny_model import tiny_config

from kamcl_jax.config import recipe
from kamcl_jax.parallel import mesh
from kamcl_jax.step import schedule
from kamcl_jax.step import state as train_state
from kamcl_jax.step.train_step import train_step
from kamcl_jax.weights.release_layout import release_momentum_mask


def same(left, right, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), left, right)


def test_key_encoders_are_averaged_before_the_update_over_all_parameters(tiny, trained):
    before, after = trained.states[1], trained.states[2]
    m = tiny.settings.momentum
    expected = jax.tree.map(lambda k, q: m * k + (1 - m) * q, before.key_params, before.params)
    same(after.key_params, expected, rtol=1e-6, atol=1e-8)
    moved = jax.tree.map(
        lambda a, b: not np.array_equal(a, b), trained.states[3].key_params, before.key_params
    )
    stay = {
        jax.tree_util.keystr(path)
        for path, has_moved in jax.tree_util.tree_leaves_with_path(moved)
        if not has_moved
    }
    assert not stay, f"key tensors that never move: {stay}"


def test_key_encoders_start_as_copies(trained):
    same(trained.states[0].key_params, trained.states[0].params)


class TwoLayers(nn.Module):
    """Called and initialised like a `DualEncoder`, with a layer to move and one to stay."""

    @nn.compact
    def __call__(self, images, tokens, lengths, word_concepts, *, train):
        self.variable("batch_stats", "mean", jnp.zeros, (3,))
        moving = nn.Dense(3, use_bias=False, name="moving")(word_concepts)
        return nn.Dense(3, use_bias=False, name="staying")(moving)


def test_key_parameters_that_never_follow_start_from_values_of_their_own():
    sizes = {"image_size": 4, "num_concepts": 5, "embedding_size": 2, "queue_length": 3}
    create = partial(train_state.create, 0, TwoLayers(), optax.sgd(1.0), **sizes)
    mask = {"moving": {"kernel": True}, "staying": {"kernel": False}}
    state = create(momentum_mask=lambda _: mask)
    query, key = state.params, state.key_params
    np.testing.assert_array_equal(key["moving"]["kernel"], query["moving"]["kernel"])
    differences = np.abs(key["staying"]["kernel"] - query["staying"]["kernel"])
    assert (differences > 1e-3).all()
    same(query, create().params, rtol=0)
    same(create().key_params, query, rtol=0)


@dataclasses.dataclass(frozen=True)
class Observed:
    """A step as the release takes it, on images that are cropped and normalised already."""

    before: train_state.TrainState
    batch: dict
    after: train_state.TrainState
    metrics: dict


@pytest.fixture(scope="module")
def release_step(tiny):
    config = tiny_config()
    config.momentum_coverage = "release"
    settings = recipe.make_settings(config, steps_per_epoch=2)
    model = tiny.model.clone(text=tiny.model.text.clone(dropout=0.0))
    state = tiny.state()
    state = state.replace(key_params=jax.tree.map(lambda leaf: leaf + 0.01, state.params))
    images = np.random.default_rng(0).normal(size=(8, 64, 64, 3)).astype(np.float32)
    batch = {**tiny.batch(), "image": images}

    def observe(gradients, compared):
        return {"gradients": gradients, "compared": compared}

    step = jax.jit(lambda s, b: train_step(s, b, model, tiny.optimizer, settings, observe=observe))
    return Observed(state, batch, *jax.device_get(step(state, batch)))


def test_with_a_mask_the_step_moves_the_marked_key_parameters_alone(tiny, release_step):
    before, after = release_step.before, release_step.after
    marked = release_momentum_mask(before.params)
    assert {True, False} == set(jax.tree.leaves(marked["image"]))
    m = tiny.settings.momentum
    expected = jax.tree.map(
        lambda k, q, moves: m * k + (1 - m) * q if moves else k,
        before.key_params,
        before.params,
        marked,
    )
    same(after.key_params, expected, rtol=1e-6, atol=1e-8)
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), after.key_params, before.key_params)
    assert moved == marked


def test_float_images_are_encoded_as_they_are(tiny, release_step):
    before, after = release_step.before, release_step.after
    encode_images = partial(
        tiny.model.apply, train=True, method="encode_images", mutable=["batch_stats"]
    )
    variables = {"params": after.key_params, "batch_stats": before.key_batch_stats}
    (keys, _), _ = jax.jit(encode_images)(variables, release_step.batch["image"])
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    np.testing.assert_allclose(after.image_queue.keys[:8], keys, rtol=0, atol=1e-5)


def test_gradients_and_similarities_are_there_to_be_observed(tiny, release_step):
    metrics, compared = release_step.metrics, release_step.metrics["compared"]
    squares = sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(metrics["gradients"]))
    np.testing.assert_allclose(metrics["gradient_norm"], np.sqrt(squares), rtol=1e-5)
    shapes = [jax.tree.map(np.shape, tree) for tree in (metrics["gradients"], tiny.state().params)]
    assert shapes[0] == shapes[1]
    negative_logs = [
        np.log(np.exp(match) + np.exp(negatives).sum(axis=1)) - match
        for match, negatives, _ in (compared.image_logits, compared.text_logits)
    ]
    contrastive = np.mean(negative_logs[0]) + np.mean(negative_logs[1])
    np.testing.assert_allclose(metrics["contrastive"], contrastive, rtol=1e-5, atol=1e-6)
    own = np.diag(compared.cosine)
    others = np.where(np.eye(8, dtype=bool), -np.inf, compared.cosine)
    margin = tiny_config().loss.margin
    hinges = [np.maximum(0, margin + others.max(axis) - own) for axis in (0, 1)]
    np.testing.assert_allclose(metrics["triplet"], np.sum(hinges), rtol=1e-5)


def test_key_batch_statistics_are_their_own(trained):
    last = trained.states[-1]
    differences = jax.tree.map(
        lambda q, k: float(np.abs(q - k).max()), last.batch_stats, last.key_batch_stats
    )
    assert max(jax.tree.leaves(differences)) > 1e-4
    same(trained.states[0].batch_stats, trained.states[0].key_batch_stats)


def test_queues_take_the_keys_first_in_first_out(trained):
    start, first, second, third = (trained.states[i] for i in range(4))
    for name in ("image_queue", "text_queue"):
        queues = [getattr(state, name) for state in (start, first, second, third)]
        assert [int(queue.pointer) for queue in queues] == [0, 8, 0, 8]
        np.testing.assert_array_equal(queues[1].keys[8:], queues[0].keys[8:])
        np.testing.assert_array_equal(queues[2].keys[:8], queues[1].keys[:8])
        np.testing.assert_array_equal(queues[3].keys[8:], queues[2].keys[8:])
        assert not np.array_equal(queues[3].keys[:8], queues[2].keys[:8])
        np.testing.assert_allclose(np.linalg.norm(queues[3].keys, axis=1), 1, rtol=1e-5)
    assert not np.allclose(first.image_queue.keys, first.text_queue.keys)


def test_step_two_adds_the_alignment_and_nothing_recompiles(tiny, tiny_step, trained):
    config, steps_per_epoch = tiny_config(), 2
    for step, measured in enumerate(trained.metrics):
        in_step_two = step >= config.schedule.alignment_from_epoch * steps_per_epoch
        assert measured["alignment_weight"] == (config.loss.alignment_weight if in_step_two else 0)
        expected = (
            config.loss.triplet_weight * measured["triplet"]
            + config.loss.contrastive_weight * measured["contrastive"]
            + measured["alignment_weight"] * measured["alignment"]
        )
        np.testing.assert_allclose(measured["loss"], expected, rtol=1e-6)
    assert tiny_step._cache_size() == 1


def test_every_query_parameter_has_a_gradient(release_step):
    gradients = jax.tree_util.tree_leaves_with_path(release_step.metrics["gradients"])
    silent = [jax.tree_util.keystr(path) for path, leaf in gradients if not np.any(leaf)]
    assert not silent, f"query parameters without a gradient: {silent}"


def test_the_state_is_donated(tiny, tiny_step, one_device):
    state = jax.device_put(tiny.state(), one_device.whole)
    leaf = state.params["image"]["resnet"]["conv1"]["kernel"]
    tiny_step(state, mesh.put_batch(one_device, tiny.batch()))
    assert leaf.is_deleted()


def test_a_step_is_a_pure_function_of_state_and_batch(tiny, tiny_step, trained, one_device):
    state = jax.device_put(tiny.state(), one_device.whole)
    _, measured = tiny_step(state, mesh.put_batch(one_device, tiny.batch(0)))
    same(jax.device_get(measured), trained.metrics[0], rtol=0, atol=0)


def test_every_step_augments_and_drops_anew(tiny, tiny_step, trained, one_device):
    later = tiny.state().replace(step=jnp.int32(1))
    state = jax.device_put(later, one_device.whole)
    _, measured = tiny_step(state, mesh.put_batch(one_device, tiny.batch(0)))
    assert abs(measured["triplet"] - trained.metrics[0]["triplet"]) > 1e-5


@pytest.fixture(scope="module")
def small():
    """A step that compiles in no time, its state, and a batch."""
    state = create_state(optax.adam(0.1))

    def step(state, batch, settings, optimizer=None):
        optimizer = optimizer or optax.adam(0.1)
        run = partial(train_step, model=Towers(), optimizer=optimizer, settings=settings)
        return jax.jit(run)(state, batch)

    return step, state


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_an_update_that_is_not_finite_is_left_out_and_counted(tiny, small, wrong):
    step, state = small
    settings = dataclasses.replace(tiny.settings, skip_not_finite=True)
    batch = tiny.batch()
    poisoned = {**batch, "word_concepts": np.where(batch["word_concepts"] > 0, wrong, 0)}
    after, metrics = step(state, poisoned, settings)
    assert not np.isfinite(metrics["loss"])
    assert metrics["skipped"] == after.skipped == 1
    same(after.replace(step=state.step, skipped=state.skipped), state, rtol=0)
    assert after.step == 1
    # The next one is taken, as without the one before.
    later, metrics = step(after, batch, settings)
    assert metrics["skipped"] == 1
    assert np.isfinite(metrics["loss"])
    expected, _ = step(state.replace(step=jnp.int32(1)), batch, tiny.settings)
    same(later.replace(skipped=jnp.int32(0)), expected, rtol=1e-6)


def test_a_skipped_update_does_not_delay_the_learning_rate(tiny, small):
    step, _ = small
    rate = schedule.step_decay(0.1, 0.5, every_epochs=1, steps_per_epoch=2)  # halved from step 2 on
    optimizer = optax.adam(rate)
    settings = dataclasses.replace(tiny.settings, skip_not_finite=True)
    batch = tiny.batch()
    poisoned = {**batch, "word_concepts": np.full_like(batch["word_concepts"], np.nan)}
    state = create_state(optimizer)
    for _ in range(2):
        state, _ = step(state, poisoned, settings, optimizer)
    after, metrics = step(state, batch, settings, optimizer)
    assert metrics["skipped"] == 2
    # Adam's first update moves an entry by the learning rate, whatever its gradient.
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), after.params, state.params)
    np.testing.assert_allclose(max(jax.tree.leaves(moved)), rate(2), rtol=1e-3)


def test_without_skipping_the_numbers_go_on(tiny, small):
    step, state = small
    batch = tiny.batch()
    poisoned = {**batch, "word_concepts": np.full_like(batch["word_concepts"], np.nan)}
    after, metrics = step(state, poisoned, tiny.settings)
    assert metrics["skipped"] == after.skipped == 0
    assert np.isnan(after.params["image"]["kernel"]).any()
