import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kamcl_jax.models import layers
from kamcl_jax.step import losses

GENERATOR = np.random.default_rng(0)


def numpy_hard_triplet(similarity, margin):
    total, size = 0.0, len(similarity)
    for i in range(size):
        others = [j for j in range(size) if j != i]
        total += max(0, *(margin + similarity[i, j] - similarity[i, i] for j in others))
        total += max(0, *(margin + similarity[j, i] - similarity[i, i] for j in others))
    return total


def test_hard_triplet_equals_its_definition():
    similarity = GENERATOR.uniform(-1, 1, (7, 7)).astype(np.float32)
    expected = numpy_hard_triplet(similarity, 0.2)
    np.testing.assert_allclose(losses.hard_triplet(similarity, 0.2), expected, rtol=1e-5)


def test_hard_triplet_is_zero_where_matches_win_by_the_margin():
    similarity = np.eye(4, dtype=np.float32)
    assert losses.hard_triplet(similarity, 0.2) == 0
    np.testing.assert_allclose(losses.hard_triplet(similarity * 0.1, 0.2), 8 * 0.1, rtol=1e-5)


def test_a_pair_that_is_left_out_is_no_hard_negative():
    similarity = GENERATOR.uniform(-1, 1, (6, 6)).astype(np.float32)
    left_out = np.zeros((6, 6), bool)
    left_out[0, 3] = left_out[3, 0] = left_out[4, 5] = left_out[5, 4] = True
    similarity[left_out] = 1  # the hardest of all
    without = np.where(left_out, -9, similarity)
    np.testing.assert_allclose(
        losses.hard_triplet(similarity, 0.2, left_out), numpy_hard_triplet(without, 0.2), rtol=1e-5
    )
    gradient = jax.grad(losses.hard_triplet)(similarity, 0.2, left_out)
    assert not np.any(gradient[left_out])
    nothing = losses.hard_triplet(similarity, 0.2, ~np.eye(6, dtype=bool))
    assert nothing == 0


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_gradient_of_hard_triplet_is_that_of_a_plain_maximum_in_one_program(size):
    queries = GENERATOR.normal(size=(2, size, 6)).astype(np.float32)

    def with_maximum(similarity):
        match, negative = jnp.diagonal(similarity), ~np.eye(size, dtype=bool)
        by_caption = jnp.where(negative, jax.nn.relu(0.2 + similarity - match[:, None]), 0)
        by_image = jnp.where(negative, jax.nn.relu(0.2 + similarity - match), 0)
        return by_caption.max(axis=1).sum() + by_image.max(axis=0).sum()

    def gradient(loss):
        def of_unit_vectors(queries):
            image, text = layers.l2_normalise(queries)
            return loss(image @ text.T)

        return jax.jit(jax.value_and_grad(of_unit_vectors))(queries)

    ours, expected = gradient(lambda x: losses.hard_triplet(x, 0.2)), gradient(with_maximum)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, expected
    )


def test_of_equally_hard_negatives_one_gets_the_gradient():
    similarity = np.full((3, 3), 0.5, np.float32)
    gradient = jax.grad(losses.hard_triplet)(similarity, 0.2)
    np.testing.assert_array_equal(gradient, [[-2, 2, 1], [2, -2, 0], [1, 0, -2]])


def test_info_nce_equals_cross_entropy_of_the_match():
    queries, keys, queue = (
        np.asarray(layers.l2_normalise(GENERATOR.normal(size=(rows, 6)).astype(np.float32)))
        for rows in (5, 5, 9)
    )
    logits = losses.contrastive_logits(queries, keys, queue, 0.07)
    rows = np.concatenate([(queries * keys).sum(1, keepdims=True), queries @ queue.T], 1) / 0.07
    np.testing.assert_allclose(logits.match, rows[:, 0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits.negatives, rows[:, 1:], rtol=1e-5, atol=1e-5)
    softmax = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(losses.info_nce(logits), -np.log(softmax[:, 0]).mean(), rtol=1e-5)


def test_without_a_queue_the_other_keys_of_the_batch_are_the_negatives():
    queries, keys = GENERATOR.normal(size=(2, 5, 6)).astype(np.float32)
    logits = queries @ keys.T / 0.07
    expected = np.log(np.exp(logits).sum(axis=1)) - np.diagonal(logits)
    got = losses.info_nce(losses.contrastive_logits(queries, keys, None, 0.07))
    np.testing.assert_allclose(got, expected.mean(), rtol=1e-4)
    gradient = jax.grad(lambda q: losses.info_nce(losses.contrastive_logits(q, keys, None, 0.07)))(
        queries
    )
    assert np.all(np.isfinite(gradient))


def test_a_target_with_shares_is_a_cross_entropy_with_soft_targets():
    match, negatives = GENERATOR.normal(size=5), GENERATOR.normal(size=(5, 7))
    negatives[0, :3] = -np.inf
    shares = GENERATOR.uniform(0, 0.1, (5, 7)) * np.isfinite(negatives)
    rows = np.concatenate([match[:, None], negatives], axis=1)
    log_p = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    targets = np.concatenate([1 - shares.sum(1, keepdims=True), shares], axis=1)
    expected = -(targets * np.where(targets > 0, log_p, 0)).sum(axis=1).mean()
    logits = losses.Logits(*(jnp.asarray(x, jnp.float32) for x in (match, negatives, shares)))
    np.testing.assert_allclose(losses.info_nce(logits), expected, rtol=1e-5)
    gradient = jax.grad(lambda logits: losses.info_nce(logits))(logits)
    assert all(np.all(np.isfinite(leaf)) for leaf in gradient[:2])


def test_concept_shares_are_larger_for_images_with_more_alike_concepts():
    labels = np.array([[1, 0, 0], [1, 0.1, 0], [0, 0, 1], [0, 0, 0]], np.float32)
    shares = np.asarray(losses.concept_shares(labels, 0.3))
    assert np.all(np.diagonal(shares) == 0)
    assert shares[0, 1] > 100 * shares[0, 2] > 0
    directions = labels / np.maximum(np.linalg.norm(labels, axis=1, keepdims=True), 1e-9)
    alike = np.exp(10 * directions @ directions.T)
    alike /= alike.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, 0.3 * alike * (1 - np.eye(4)), rtol=1e-5)
    assert not np.any(losses.concept_shares(labels, 0.0))


def test_only_queries_get_a_gradient_of_the_logits():
    arrays = [GENERATOR.normal(size=(rows, 6)).astype(np.float32) for rows in (5, 5, 9)]
    gradients = jax.grad(
        lambda *a: losses.info_nce(losses.contrastive_logits(*a, 0.07)), argnums=(0, 1, 2)
    )(*arrays)
    assert np.any(gradients[0])
    assert not np.any(gradients[1])
    assert not np.any(gradients[2])


def of_pairs(logits, positives, left_out):
    """The paper's formula, pair by pair: -log 1 / (1 + exp(-z x)) with z = 1 or -1, over B."""
    signs = np.where(positives, 1, -1)
    return np.sum(np.log1p(np.exp(-signs * logits))[~left_out]) / len(logits)


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("leaves_out", [False, True])
def test_pairwise_sigmoid_is_the_formula_of_the_paper(size, leaves_out):
    logits = GENERATOR.normal(scale=5, size=(size, size))
    own = np.eye(size, dtype=bool)
    left_out = (GENERATOR.random((size, size)) < 0.3) & ~own & leaves_out
    expected = of_pairs(logits, own, left_out)
    inputs = np.float32(logits), own, left_out if leaves_out else None
    value, gradient = jax.jit(jax.value_and_grad(losses.pairwise_sigmoid))(*inputs)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    slopes = (1 / (1 + np.exp(-logits)) - own) * ~left_out / size
    np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-7)


def test_pairwise_sigmoid_and_its_gradient_stay_finite_for_large_logits():
    logits, own = np.float32([[-300, 300], [1e30, -1e30]]), np.eye(2, dtype=bool)
    value, gradient = jax.value_and_grad(losses.pairwise_sigmoid)(logits, own)
    np.testing.assert_allclose(value, (300 + 300 + 1e30 + 1e30) / 2, rtol=1e-5)
    np.testing.assert_array_equal(gradient, np.float32([[-0.5, 0.5], [0.5, -0.5]]))


def test_concept_alignment_equals_binary_cross_entropy():
    p, y = GENERATOR.uniform(0.01, 0.99, (2, 4, 5)).astype(np.float32)
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    np.testing.assert_allclose(losses.concept_alignment(p, y), expected, rtol=1e-5)


def test_concept_alignment_and_gradient_stay_finite_at_the_ends():
    p, y = np.array([[0.0, 1.0]], np.float32), np.array([[1.0, 0.0]], np.float32)
    value, gradient = jax.value_and_grad(losses.concept_alignment)(p, y)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("loss", ["triplet", "info_nce", "alignment", "sigmoid"])
def test_gradients_agree_with_finite_differences(loss):
    # Steps of 0.05, and a margin between them: no kink of the triplet loss is near.
    x = (0.1 + 0.05 * GENERATOR.permutation(16).reshape(4, 4)).astype(np.float32)
    labels = GENERATOR.uniform(0, 1, (4, 4)).astype(np.float32)
    function = {
        "triplet": lambda x: losses.hard_triplet(x, 0.225),
        "info_nce": lambda x: losses.info_nce(losses.Logits(x[:, 0], x[:, 1:])),
        "alignment": lambda x: losses.concept_alignment(x, labels),
        "sigmoid": lambda x: losses.pairwise_sigmoid(x, np.eye(4, dtype=bool)),
    }[loss]
    direction = GENERATOR.normal(size=x.shape).astype(np.float32)
    slope = float((jax.grad(function)(x) * direction).sum())
    h = 1e-3
    difference = float(function(x + h * direction) - function(x - h * direction)) / (2 * h)
    np.testing.assert_allclose(slope, difference, rtol=2e-2, atol=2e-3)


def test_l2_normalise_has_unit_rows_and_a_finite_gradient_at_zero():
    x = GENERATOR.normal(size=(3, 8)).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(layers.l2_normalise(x), axis=1), 1, rtol=1e-6)
    assert np.all(
        np.isfinite(jax.grad(lambda x: layers.l2_normalise(x).sum())(np.zeros((1, 4), "f")))
    )
