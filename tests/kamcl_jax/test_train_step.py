"""One step of KAMCL: momentum, queues, schedule, gradients, sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kamcl_jax import sharding
from kamcl_jax.train_step import encode, loss_terms, make_train_step, similarities, train_step


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
    settings = tiny.settings
    for step, measured in enumerate(trained.metrics):
        in_step_two = step >= settings.alignment_from_epoch * settings.steps_per_epoch
        assert measured["alignment_weight"] == (settings.alignment_weight if in_step_two else 0)
        expected = (
            settings.triplet_weight * measured["triplet"]
            + settings.contrastive_weight * measured["contrastive"]
            + measured["alignment_weight"] * measured["alignment"]
        )
        np.testing.assert_allclose(measured["loss"], expected, rtol=1e-6)
    assert tiny_step._cache_size() == 1


def test_no_gradient_reaches_keys_or_queues(tiny):
    state = tiny.state()
    batch = {**tiny.batch(), "image": np.random.default_rng(0).normal(size=(8, 64, 64, 3))}

    def loss(params, key_params, image_queue, text_queue):
        now = state.replace(
            image_queue=state.image_queue.replace(keys=image_queue),
            text_queue=state.text_queue.replace(keys=text_queue),
            step=jnp.int32(10),
        )
        dropout = jax.random.split(jax.random.key(1))
        queries = encode(tiny.model, params, state.batch_stats, batch, dropout[0])
        keys = encode(tiny.model, key_params, state.key_batch_stats, batch, dropout[1])
        compared = similarities(queries, keys, now, tiny.settings)
        labels = batch["image_concepts"]
        return loss_terms(compared, queries, labels, now.step, tiny.settings)[0]

    queues = (state.image_queue.keys, state.text_queue.keys)
    query, *others = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(
        state.params, state.key_params, *queues
    )
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(others))
    silent = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(query)
        if not np.any(leaf)
    ]
    assert not silent, f"query parameters without a gradient: {silent}"


def test_eight_devices_compute_what_one_does(tiny, trained):
    mesh = sharding.make_mesh()
    assert mesh.size == 8
    step = make_train_step(tiny.model, tiny.optimizer, tiny.settings, mesh)
    state = jax.device_put(tiny.state(), sharding.replicated(mesh))
    for number, expected in enumerate(trained.metrics):
        batch = sharding.put_batch(mesh, tiny.batch(number))
        assert len(batch["image"].sharding.device_set) == 8
        state, measured = step(state, batch)
        # Sums run in another order; hardest negatives and sorted features amplify it a little.
        same(jax.device_get(measured), expected, rtol=2e-4, atol=2e-5)
    same(state.params, trained.states[-1].params, rtol=0, atol=1e-4)
    same(state.image_queue, trained.states[-1].image_queue, rtol=0, atol=1e-3)
    assert step._cache_size() == 1


def test_the_state_is_donated(tiny, tiny_step, one_device):
    state = jax.device_put(tiny.state(), sharding.replicated(one_device))
    leaf = state.params["image"]["resnet"]["conv1"]["kernel"]
    tiny_step(state, sharding.put_batch(one_device, tiny.batch()))
    assert leaf.is_deleted()


def test_a_step_is_a_pure_function_of_state_and_batch(tiny, tiny_step, trained, one_device):
    state = jax.device_put(tiny.state(), sharding.replicated(one_device))
    _, measured = tiny_step(state, sharding.put_batch(one_device, tiny.batch(0)))
    same(jax.device_get(measured), trained.metrics[0], rtol=0, atol=0)


def test_every_step_augments_and_drops_anew(tiny, tiny_step, trained, one_device):
    later = tiny.state().replace(step=jnp.int32(1))
    state = jax.device_put(later, sharding.replicated(one_device))
    _, measured = tiny_step(state, sharding.put_batch(one_device, tiny.batch(0)))
    assert abs(measured["triplet"] - trained.metrics[0]["triplet"]) > 1e-5


def test_the_queue_must_hold_whole_batches(tiny):
    state = tiny.state()
    batch = {name: array[:3] for name, array in tiny.batch().items()}
    with pytest.raises(ValueError, match="queue length 16 is not a multiple of the batch of 3"):
        jax.eval_shape(
            lambda s, b: train_step(s, b, tiny.model, tiny.optimizer, tiny.settings), state, batch
        )
