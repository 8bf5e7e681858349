"""What a batch's queries are compared with: the losses are those over the candidates that count."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pair_ids import draw_ids, loop_of_left_out

from kamcl_jax.benchmark.step_parts import random_encodings
from kamcl_jax.models import layers
from kamcl_jax.parallel.mesh import Layout, make_mesh
from kamcl_jax.step import key_queue, objective
from kamcl_jax.step.key_queue import IMAGE_ID, TEXT_ID, UNKNOWN, KeyQueue, PairIds

SIZE, LENGTH, WIDTH = 6, 15, 8


def draw_queue(seed):
    keys = random_encodings(seed, LENGTH, WIDTH, 3).image
    ids = draw_ids(seed, LENGTH)
    ids.image[:4] = ids.text[:4] = UNKNOWN
    return KeyQueue(keys, np.int32(0), ids)


QUERIES, KEYS = (random_encodings(seed, SIZE, WIDTH, 3) for seed in (0, 1))
IDS, IMAGES, TEXTS = draw_ids(0, SIZE), draw_queue(2), draw_queue(3)
SIDES = ((QUERIES.image, KEYS.text, TEXTS), (QUERIES.text, KEYS.image, IMAGES))


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


def plain_sigmoid(queries, temperature, bias, left_out):
    """The sigmoid loss as a sum over all pairs that are left, of the library's log-sigmoid."""
    total, (image, text) = 0.0, (queries.image, queries.text)
    for i in range(len(image)):
        for j in range(len(text)):
            if i == j or not left_out[i][j]:
                logit = jnp.dot(image[i], text[j]) / temperature + bias
                total -= jax.nn.log_sigmoid(logit if i == j else -logit)
    return total / len(image)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(
    ("size", "dtype", "tolerance"),
    [(1, jnp.float32, 1e-5), (6, jnp.float32, 1e-5), (6, jnp.bfloat16, 2e-2)],
)
def test_the_sigmoid_loss_and_its_gradient_are_those_of_a_plain_twin(
    settings, size, dtype, tolerance, masks
):
    drawn = random_encodings(0, size, WIDTH, 3)
    ids = jax.tree.map(lambda x: x[:size], IDS)
    batch = {IMAGE_ID: ids.image, TEXT_ID: ids.text}
    keys = jax.tree.map(lambda x: x[:size], KEYS)
    left_out = loop_of_left_out(ids, ids) if masks else np.zeros((size, size), bool)

    def units(queries):
        return jax.tree.map(lambda x: layers.l2_normalise(x.astype(dtype)), queries)

    def ours(queries, temperature, bias):
        contrast = settings._replace(temperature=temperature, bias=bias, mask_false_negatives=masks)
        compared = objective.compare(
            units(queries), keys, batch, IMAGES, TEXTS, jnp.int32(0), contrast
        )
        return objective.pairwise_sigmoid(compared)

    def twin(queries, temperature, bias):
        return plain_sigmoid(units(queries), temperature, bias, left_out)

    found, expected = (
        jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(drawn, 0.1, -3.0)
        for loss in (ours, twin)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        found,
        expected,
    )


def test_the_sigmoid_loss_without_a_bias_adds_none(settings):
    def loss(bias):
        contrast = settings._replace(bias=bias)
        return objective.pairwise_sigmoid(
            objective.compare(QUERIES, KEYS, {}, IMAGES, TEXTS, jnp.int32(0), contrast)
        )

    assert loss(None) == loss(0.0) != loss(-10.0)


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
