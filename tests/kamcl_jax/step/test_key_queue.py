"""The queue of keys; keys of a query's image or text: found, left out and remembered."""

import dataclasses
import math
from collections import deque
from functools import partial

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from linear_towers import Towers, create_state
from pair_ids import draw_ids, loop_of_left_out
from tiny_model import BATCH, QUEUE

from kamcl_jax.parallel.compilation import collectives, compile_step
from kamcl_jax.parallel.mesh import BATCH_AXES, make_mesh, put_batch
from kamcl_jax.step import key_queue
from kamcl_jax.step.key_queue import (
    IMAGE_ID,
    TEXT_ID,
    UNKNOWN,
    PairIds,
)
from kamcl_jax.step.state import state_layout
from kamcl_jax.step.train_step import make_train_step


def test_keys_of_the_same_image_or_text_are_found_and_random_keys_never():
    ids, images, texts = (draw_ids(seed, count) for seed, count in ((0, 6), (2, 15), (3, 15)))
    for past in (images, texts):
        past.image[:4] = past.text[:4] = UNKNOWN
    found = key_queue.same_in_queue(ids, images, texts)
    np.testing.assert_array_equal(found.of_images, loop_of_left_out(ids, texts))
    np.testing.assert_array_equal(found.of_texts, loop_of_left_out(ids, images))
    assert not found.of_images[:, :4].any()
    assert 0 < found.of_texts.mean() < 1
    counts = [np.sum(loop_of_left_out(ids, past)) for past in (texts, images)]
    np.testing.assert_allclose(found.per_query, sum(counts) / (2 * 6), rtol=1e-6)


@pytest.mark.parametrize("length", [6, 7])
def test_queue_is_a_ring_buffer(length):
    queue = key_queue.random_queue(jax.random.key(0), length, 3)
    np.testing.assert_allclose(np.linalg.norm(queue.keys, axis=1), 1, rtol=1e-6)
    expected = deque(np.asarray(queue.keys), maxlen=length)
    for number in range(5):
        keys = np.full((2, 3), number, np.float32)
        queue = key_queue.push(queue, keys)
        expected.extend(keys)
    stored = np.roll(queue.keys, -int(queue.pointer), axis=0)
    np.testing.assert_array_equal(stored, np.stack(expected))


def test_no_gradient_through_pushed_keys():
    queue = key_queue.random_queue(jax.random.key(0), 4, 3)
    gradient = jax.grad(lambda keys: key_queue.push(queue, keys).keys.sum())(np.ones((2, 3), "f"))
    assert not np.any(gradient)


def test_a_queue_remembers_the_pairs_of_its_keys():
    queue = key_queue.random_queue(jax.random.key(0), 7, 3, with_ids=True)
    expected = deque([UNKNOWN] * 7, maxlen=7)
    for number in range(5):
        ids = PairIds(np.int32([number, number + 10]), np.int32([2 * number, 0]))
        queue = key_queue.push(queue, np.full((2, 3), number, np.float32), ids)
        expected.extend([number, number + 10])
        stored = np.roll(queue.ids.image, -int(queue.pointer))
        np.testing.assert_array_equal(stored, expected)
    known = np.asarray(queue.ids.image) < 10
    np.testing.assert_array_equal(queue.ids.text[known], 2 * queue.ids.image[known])
    np.testing.assert_array_equal(queue.keys[known, 0], queue.ids.image[known])
    with pytest.raises(ValueError, match="None"):
        key_queue.push(queue, np.ones((2, 3), np.float32))


def batch_of(tiny, step):
    ids = draw_ids(step, BATCH, images=9, texts=12)
    return {**tiny.batch(step), IMAGE_ID: ids.image, TEXT_ID: ids.text}


@dataclasses.dataclass(frozen=True)
class Ran:
    """Three steps."""

    states: list
    metrics: list


@pytest.fixture(scope="module")
def masking(tiny):
    masks = tiny.settings.contrast._replace(mask_false_negatives=True)
    return dataclasses.replace(tiny.settings, contrast=masks)


@pytest.fixture(scope="module")
def ran(tiny, masking):
    """Name -> steps that leave false negatives out, on one device and on eight, and that do not."""
    optimizer = optax.sgd(1e-2)
    create = partial(create_state, optimizer)

    def run(mesh, settings, with_ids, queue="replicated"):
        abstract = jax.eval_shape(partial(create, queue_ids=with_ids))
        layout = state_layout(mesh, abstract, fsdp_min_size=8, queue=queue)
        step = make_train_step(Towers(), optimizer, settings, layout)
        compiled = compile_step(step, abstract, batch_of(tiny, 0), layout)
        state = jax.device_put(create(queue_ids=with_ids), layout.state)
        states, metrics = [], []
        for number in range(3):
            batch = put_batch(layout, batch_of(tiny, number))
            state, measured = compiled(state, batch)
            states.append(state if queue == "sharded" else jax.device_get(state))
            metrics.append(jax.device_get(measured))
            if queue == "sharded":
                state = jax.tree.map(lambda x: x + 0, state)  # the step would donate it
        return Ran(states, metrics)

    one = make_mesh(devices=jax.devices()[:1])
    return {
        "masked": run(one, masking, True),
        "sharded": run(make_mesh(4, 2), masking, True, "sharded"),
        "plain": run(one, tiny.settings, False),
    }


def test_steps_leave_out_what_earlier_steps_have_pushed(ran, tiny):
    pushed = deque([(-1, -1)] * QUEUE, maxlen=QUEUE)
    for step, metrics in enumerate(ran["masked"].metrics):
        batch = batch_of(tiny, step)
        pairs = list(zip(batch[IMAGE_ID], batch[TEXT_ID], strict=True))
        counts = [sum(image == i or text == t for i, t in pushed) for image, text in pairs]
        np.testing.assert_allclose(metrics["false_negatives"], np.mean(counts), rtol=1e-6)
        pushed.extend(pairs)
    assert ran["masked"].metrics[0]["false_negatives"] == 0
    assert ran["masked"].metrics[2]["false_negatives"] > 0
    queue = ran["masked"].states[-1].text_queue
    stored = zip(queue.ids.image.tolist(), queue.ids.text.tolist(), strict=True)
    assert sorted(stored) == sorted((int(i), int(t)) for i, t in pushed)


def test_both_losses_leave_out_the_same_and_the_alignment_does_not(ran):
    masked, plain = ran["masked"].metrics, ran["plain"].metrics
    # The queue has nothing to leave out yet; the batch has.
    np.testing.assert_allclose(masked[0]["contrastive"], plain[0]["contrastive"], rtol=1e-5)
    assert masked[0]["triplet"] < plain[0]["triplet"]
    np.testing.assert_allclose(masked[0]["alignment"], plain[0]["alignment"], rtol=1e-5)
    assert masked[1]["contrastive"] < plain[1]["contrastive"]


def test_without_the_option_the_state_has_no_ids(ran):
    names = {
        jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(ran["plain"].states[0])
    }
    assert not [name for name in names if "ids" in name]
    assert {name for name in names if "queue" in name} == {
        f".{queue}.{field}"
        for queue in ("image_queue", "text_queue")
        for field in ("keys", "pointer")
    }
    assert "false_negatives" not in ran["plain"].metrics[0]


def test_eight_devices_with_a_sharded_queue_leave_out_the_same(ran):
    for measured, expected in zip(ran["sharded"].metrics, ran["masked"].metrics, strict=True):
        for name, value in expected.items():
            np.testing.assert_allclose(measured[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    ids = [ran[name].states[-1].image_queue.ids for name in ("sharded", "masked")]
    jax.tree.map(np.testing.assert_array_equal, *ids)


def test_ids_lie_with_their_keys_and_neither_is_sent(tiny, masking):
    length, optimizer = 4096, optax.sgd(1e-2)
    create = partial(create_state, optimizer, queue_ids=True, queue_length=length)
    abstract = jax.eval_shape(create)
    mesh = make_mesh(4, 2)
    layout = state_layout(mesh, abstract, fsdp_min_size=8, queue="sharded")
    queue = layout.state.image_queue
    for place in (queue.keys, queue.ids.image, queue.ids.text):
        assert place.spec == PartitionSpec(BATCH_AXES)
    step = make_train_step(Towers(), optimizer, masking, layout)
    program = compile_step(step, abstract, batch_of(tiny, 0), layout).as_text()
    assert f"s32[{length // 8}]" in program
    assert f"s32[{length}]" not in program
    # A batch's ids go to the queue, and each device's hardest negatives to the others.
    ints = [math.prod(one.shape) for one in collectives(program) if one.dtype == "s32"]
    assert max(ints, default=0) <= 8 * BATCH
