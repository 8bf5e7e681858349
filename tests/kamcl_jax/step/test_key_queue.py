"""The queue of keys; keys of a query's image or text: found, left out and remembered."""

import dataclasses
import math
from collections import deque
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from linear_towers import Towers, create_state
from tiny_model import BATCH, QUEUE

from kamcl_jax.benchmark.step_parts import random_encodings
from kamcl_jax.parallel.compilation import collectives, compile_step
from kamcl_jax.parallel.mesh import BATCH_AXES, Layout, make_mesh, put_batch
from kamcl_jax.step import key_queue, objective
from kamcl_jax.step.key_queue import (
    IMAGE_ID,
    TEXT_ID,
    UNKNOWN,
    KeyQueue,
    PairIds,
)
from kamcl_jax.step.state import state_layout
from kamcl_jax.step.train_step import make_train_step

SIZE, LENGTH, WIDTH = 6, 15, 8


def draw_ids(seed, count, images=4, texts=5):
    generator = np.random.default_rng(seed)
    image, text = generator.integers(0, images, count), generator.integers(0, texts, count)
    return PairIds(image.astype(np.int32), text.astype(np.int32))


def draw_queue(seed):
    keys = random_encodings(seed, LENGTH, WIDTH, 3).image
    ids = draw_ids(seed, LENGTH)
    ids.image[:4] = ids.text[:4] = UNKNOWN
    return KeyQueue(keys, np.int32(0), ids)


QUERIES, KEYS = (random_encodings(seed, SIZE, WIDTH, 3) for seed in (0, 1))
IDS, IMAGES, TEXTS = draw_ids(0, SIZE), draw_queue(2), draw_queue(3)


def loop_of_left_out(queries, keys):
    """What the definition says, key by key."""
    return [
        [
            queries.image[i] == keys.image[k] or queries.text[i] == keys.text[k]
            for k in range(len(keys.image))
        ]
        for i in range(len(queries.image))
    ]


def numpy_info_nce(queries, keys, negatives, left_out, temperature):
    """The mean of -log softmax of the match over itself and the negatives that are left."""
    terms = []
    for query, key, masked in zip(queries, keys, left_out, strict=True):
        kept = [other for other, gone in zip(negatives, masked, strict=True) if not gone]
        logits = np.array([query @ other for other in [key, *kept]], np.float64) / temperature
        terms.append(np.log(np.exp(logits).sum()) - logits[0])
    return np.mean(terms)


def contrastive(settings, ids=IDS, queries=QUERIES, keys=KEYS, images=IMAGES, texts=TEXTS):
    return compiled(settings, ids, queries, keys, images, texts)


@partial(jax.jit, static_argnames="settings")
def compiled(settings, ids, queries, keys, images, texts):
    if settings.negatives == "batch":
        images, texts = images.replace(ids=None), texts.replace(ids=None)
    batch = {IMAGE_ID: ids.image, TEXT_ID: ids.text} if ids else {}
    masks = bool(ids) and settings.positives == "own" and not settings.mask_unfilled
    settings = settings._replace(mask_false_negatives=masks)
    compared = objective.compare(queries, keys, batch, images, texts, jnp.int32(0), settings)
    return objective.contrastive(compared)


@pytest.fixture
def settings(tiny):
    return tiny.settings.contrast


def test_keys_of_the_same_image_or_text_are_found_and_random_keys_never():
    found = key_queue.same_in_queue(IDS, IMAGES.ids, TEXTS.ids)
    np.testing.assert_array_equal(found.of_images, loop_of_left_out(IDS, TEXTS.ids))
    np.testing.assert_array_equal(found.of_texts, loop_of_left_out(IDS, IMAGES.ids))
    assert not found.of_images[:, :4].any()
    assert 0 < found.of_texts.mean() < 1
    counts = [np.sum(loop_of_left_out(IDS, queue.ids)) for queue in (TEXTS, IMAGES)]
    np.testing.assert_allclose(found.per_query, sum(counts) / (2 * SIZE), rtol=1e-6)


def test_the_losses_are_those_over_the_negatives_that_are_left(settings):
    t = settings.temperature
    expected = sum(
        numpy_info_nce(queries, keys, queue.keys, loop_of_left_out(IDS, queue.ids), t)
        for queries, keys, queue in (
            (QUERIES.image, KEYS.text, TEXTS),
            (QUERIES.text, KEYS.image, IMAGES),
        )
    )
    np.testing.assert_allclose(contrastive(settings), expected, rtol=1e-5)
    assert contrastive(settings) < contrastive(settings, ids=None)


def test_of_a_batchs_keys_the_same_are_left_out_too(settings):
    settings = settings._replace(negatives="batch")
    own = loop_of_left_out(IDS, IDS)  # the match among them
    t = settings.temperature
    expected = sum(
        numpy_info_nce(queries, keys, keys, own, t)
        for queries, keys in ((QUERIES.image, KEYS.text), (QUERIES.text, KEYS.image))
    )
    np.testing.assert_allclose(contrastive(settings), expected, rtol=1e-5)
    per_query = key_queue.same_in_batch(IDS).per_query
    np.testing.assert_allclose(per_query, np.sum(own) / SIZE - 1, rtol=1e-6)


SIDES = ((QUERIES.image, KEYS.text, TEXTS), (QUERIES.text, KEYS.image, IMAGES))


def test_the_batchs_keys_and_past_ones_are_negatives_together(settings):
    t = settings.temperature
    expected = sum(
        numpy_info_nce(
            queries,
            keys,
            np.concatenate([keys, queue.keys]),
            np.concatenate([loop_of_left_out(IDS, IDS), loop_of_left_out(IDS, queue.ids)], 1),
            t,
        )
        for queries, keys, queue in SIDES
    )
    both = settings._replace(negatives="both")
    np.testing.assert_allclose(contrastive(both), expected, rtol=1e-5)
    assert contrastive(both) > contrastive(settings)


@pytest.mark.parametrize("negatives", ["queue", "both"])
def test_random_keys_of_the_start_are_no_negatives(settings, negatives):
    settings = settings._replace(negatives=negatives)
    filled = settings._replace(mask_unfilled=True)
    own = np.eye(SIZE, dtype=bool)
    expected = 0.0
    for queries, keys, queue in SIDES:
        others, left_out = queue.keys[4:], np.zeros((SIZE, LENGTH - 4), bool)
        if negatives == "both":
            others, left_out = np.concatenate([keys, others]), np.concatenate([own, left_out], 1)
        expected += numpy_info_nce(queries, keys, others, left_out, settings.temperature)
    np.testing.assert_allclose(contrastive(filled), expected, rtol=1e-5)
    assert contrastive(filled) < contrastive(settings, ids=None)


@pytest.mark.parametrize("negatives", ["queue", "batch", "both"])
def test_equal_keys_are_positives_with_equal_shares(settings, negatives):
    settings = settings._replace(negatives=negatives, positives="equal")
    expected = 0.0
    for queries, keys, queue in SIDES:
        others, same = [], []
        if negatives != "queue":
            others, same = [keys], [loop_of_left_out(IDS, IDS) & ~np.eye(SIZE, dtype=bool)]
        if negatives != "batch":
            others, same = [*others, queue.keys], [*same, loop_of_left_out(IDS, queue.ids)]
        others, same = np.concatenate(others), np.concatenate(same, 1)
        for b in range(SIZE):
            gone = np.arange(len(others)) == b if negatives != "queue" else np.zeros(len(others))
            logits = np.array([queries[b] @ key for key in [keys[b], *others]], np.float64)
            logits /= settings.temperature
            total = np.log(np.exp(logits[~np.r_[False, gone.astype(bool)]]).sum())
            expected += (total - logits[np.r_[True, same[b]]].mean()) / SIZE
    np.testing.assert_allclose(contrastive(settings), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"mask_false_negatives": True, "mask_unfilled": True}, {"positives": "equal"}]
)
def test_eight_devices_compare_with_their_shares_of_the_queue_as_one_does(settings, changes):
    settings = settings._replace(negatives="both", **changes)
    queries, keys, past = (
        random_encodings(seed, size, WIDTH, 3) for seed, size in ((0, 8), (1, 8), (2, 16))
    )
    ids = draw_ids(0, 8)
    batch = {IMAGE_ID: ids.image, TEXT_ID: ids.text}
    images, texts = (
        KeyQueue(rows, np.int32(0), draw_ids(seed, 16))
        for seed, rows in ((3, past.image), (4, past.text))
    )
    texts.ids.image[:4] = texts.ids.text[:4] = UNKNOWN

    def loss(queries, images, texts, layout=None):
        compared = objective.compare(
            queries, keys, batch, images, texts, jnp.int32(0), settings, layout
        )
        return objective.contrastive(compared)

    layout = Layout(make_mesh(4, 2), None, shard_queues=True)
    rows = KeyQueue(layout.batch, layout.whole, PairIds(layout.batch, layout.batch))
    spread = jax.jit(
        jax.value_and_grad(partial(loss, layout=layout)), in_shardings=(layout.batch, rows, rows)
    )
    expected = jax.jit(jax.value_and_grad(loss))(queries, images, texts)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        spread(queries, images, texts),
        expected,
    )


@pytest.mark.parametrize("masks", [False, True])
def test_the_queries_of_a_batch_are_compared_with_each_other(settings, masks):
    batch = {IMAGE_ID: IDS.image, TEXT_ID: IDS.text}
    settings = settings._replace(mask_false_negatives=masks)

    @jax.jit
    def loss(queries):
        compared = objective.compare(queries, KEYS, batch, IMAGES, TEXTS, jnp.int32(0), settings)
        return objective.batch_contrastive(compared)

    left_out = loop_of_left_out(IDS, IDS) if masks else np.eye(SIZE, dtype=bool)
    one, other = np.asarray(QUERIES.image), np.asarray(QUERIES.text)
    expected = sum(
        numpy_info_nce(queries, own, own, left_out, settings.temperature)
        for queries, own in ((one, other), (other, one))
    )
    np.testing.assert_allclose(loss(QUERIES), expected, rtol=1e-5)
    gradient = jax.grad(loss)(QUERIES)
    assert np.all(np.abs(gradient.image).sum(1) > 0)
    assert np.all(np.abs(gradient.text).sum(1) > 0)


@pytest.mark.parametrize("negatives", ["queue", "batch"])
def test_where_nothing_is_the_same_nothing_changes(settings, negatives):
    settings = settings._replace(negatives=negatives)
    numbers = np.arange(SIZE, dtype=np.int32) + 100
    masked = contrastive(settings, PairIds(numbers, numbers))
    np.testing.assert_allclose(masked, contrastive(settings, ids=None), rtol=1e-6)


def test_a_query_that_has_no_negative_left_has_no_loss_and_no_gradient(settings):
    ids = PairIds(np.zeros(SIZE, np.int32), np.arange(SIZE, dtype=np.int32))
    same_image = PairIds(np.zeros(LENGTH, np.int32), np.full(LENGTH, 99, np.int32))
    queues = {"images": IMAGES.replace(ids=same_image), "texts": TEXTS.replace(ids=same_image)}
    value, gradient = jax.value_and_grad(
        lambda queries: contrastive(settings, ids, queries, **queues)
    )(QUERIES)
    np.testing.assert_allclose(value, 0, atol=1e-6)  # but for rounding
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, 0, atol=1e-6)


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
