"""Ranks and recalls against plain loops, ties included."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from kamcl_jax import config_check, evaluation, reporting

GENERATOR = np.random.default_rng(0)


def expected_first_place(scores, right):
    """Expected place of the first right item over all orders of tied items, by enumeration."""
    best = max(scores[i] for i in right)
    ahead = sum(score > best for score in scores)
    tied = [i for i, score in enumerate(scores) if score == best]
    places = [
        min(order.index(i) for i in right if i in tied) for order in itertools.permutations(tied)
    ]
    return 1 + ahead + np.mean(places)


@pytest.mark.parametrize("levels", [3, 1000])
def test_ranks_equal_enumeration_with_any_number_of_captions(levels):
    image_of_caption = np.array([0, 0, 1, 2, 2, 2, 3])
    for _ in range(20):
        similarity = GENERATOR.integers(0, levels, (4, 7)).astype(np.float32)
        i2t = [
            expected_first_place(list(similarity[i]), np.flatnonzero(image_of_caption == i))
            for i in range(4)
        ]
        t2i = [
            expected_first_place(list(similarity[:, c]), [image_of_caption[c]]) for c in range(7)
        ]
        got = evaluation.image_to_text_ranks(similarity, image_of_caption)
        np.testing.assert_allclose(got, i2t)
        np.testing.assert_allclose(
            evaluation.text_to_image_ranks(similarity, image_of_caption), t2i
        )


def test_metrics_of_a_perfect_and_of_a_constant_matrix():
    image_of_caption = np.repeat(np.arange(20), 5)
    perfect = (image_of_caption[None] == np.arange(20)[:, None]).astype(np.float32)
    metrics = evaluation.retrieval_metrics(perfect, image_of_caption)
    assert metrics["mR"] == 100
    assert metrics["i2t_medr"] == metrics["t2i_meanr"] == 1
    constant = evaluation.retrieval_metrics(np.ones((20, 100), np.float32), image_of_caption)
    assert constant["t2i_meanr"] == pytest.approx(10.5)
    assert constant["i2t_meanr"] == pytest.approx(1 + 95 / 6)
    assert constant["t2i_r5"] == 0


def test_scores_that_are_not_numbers_find_nothing():
    image_of_caption = np.repeat(np.arange(20), 5)
    metrics = evaluation.retrieval_metrics(np.full((20, 100), np.nan), image_of_caption)
    assert metrics["mR"] == 0
    broken = GENERATOR.random((20, 100))
    broken[3] = np.nan
    ranks = evaluation.image_to_text_ranks(broken, image_of_caption)
    assert ranks[3] > 95


def test_metrics_equal_a_plain_argsort_without_ties():
    image_of_caption = np.repeat(np.arange(30), 5)
    similarity = GENERATOR.permutation(30 * 150).reshape(30, 150).astype(np.float32)
    metrics = evaluation.retrieval_metrics(similarity, image_of_caption)
    i2t = np.array(
        [
            min(list(np.argsort(-similarity[i])).index(c) for c in range(5 * i, 5 * i + 5))
            for i in range(30)
        ]
    )
    t2i = np.array([list(np.argsort(-similarity[:, c])).index(c // 5) for c in range(150)])
    for way, ranks in (("i2t", i2t), ("t2i", t2i)):
        for k in (1, 5, 10):
            assert metrics[f"{way}_r{k}"] == pytest.approx(100 * np.mean(ranks < k))
        assert metrics[f"{way}_medr"] == pytest.approx(np.median(ranks) + 1)
        assert metrics[f"{way}_meanr"] == pytest.approx(np.mean(ranks) + 1)
    recalls = [metrics[f"{way}_r{k}"] for way in ("i2t", "t2i") for k in (1, 5, 10)]
    assert metrics["mR"] == pytest.approx(np.mean(recalls))


def release_places(scores, right):
    """Zero-based place of the first of the right items, by the release's steps, one at a time."""
    order = np.argsort(np.array(scores, np.float64))[::-1].tolist()
    return min(order.index(item) for item in right)


@pytest.mark.parametrize("levels", [2, 4, 10**6])
@pytest.mark.parametrize("captions", [[1, 2, 3, 5, 4, 1], [5] * 30])
def test_argsort_ranks_equal_a_plain_loop(levels, captions):
    image_of_caption = np.repeat(np.arange(len(captions)), captions)
    shape = (len(captions), len(image_of_caption))
    for _ in range(5):
        similarity = (GENERATOR.integers(0, levels, shape) / levels).astype(np.float32)
        i2t = [
            release_places(row, np.flatnonzero(image_of_caption == image))
            for image, row in enumerate(similarity)
        ]
        t2i = [
            release_places(similarity[:, caption], [image])
            for caption, image in enumerate(image_of_caption)
        ]
        metrics = evaluation.retrieval_metrics(similarity, image_of_caption, ties="argsort")
        for way, places in (("i2t", i2t), ("t2i", t2i)):
            for k in (1, 5, 10):
                assert metrics[f"{way}_r{k}"] == pytest.approx(100 * np.mean(np.array(places) < k))
            assert metrics[f"{way}_medr"] == np.floor(np.median(places)) + 1
            assert metrics[f"{way}_meanr"] == pytest.approx(np.mean(places) + 1)


def test_ways_to_count_ties_agree_where_there_are_none():
    image_of_caption = np.repeat(np.arange(12), [1, 5, 5, 3, 5, 5, 2, 5, 5, 5, 4, 5])
    shape = (12, len(image_of_caption))
    similarity = GENERATOR.permutation(np.prod(shape)).reshape(shape).astype(np.float32)
    for ranks in (evaluation.image_to_text_ranks, evaluation.text_to_image_ranks):
        expected, argsort = (ranks(similarity, image_of_caption, ties) for ties in evaluation.TIES)
        np.testing.assert_array_equal(expected, argsort)
    # The best captions of four images rank 1, 2, 3 and 4: the median is 2.5, the release's 2.
    ranked = np.array([[4, 0, 0, 1], [3, 2, 0, 1], [4, 3, 2, 1], [4, 3, 2, 1]], np.float32)
    medians = [
        evaluation.retrieval_metrics(ranked, np.arange(4), ties)["i2t_medr"]
        for ties in evaluation.TIES
    ]
    assert medians == [2.5, 2.0]


def test_a_collapsed_model_scores_by_the_order_of_the_data_with_argsort_alone():
    image_of_caption = np.repeat(np.arange(20), 5)
    constant = np.ones((20, 100), np.float32)
    expected = evaluation.retrieval_metrics(constant, image_of_caption)
    argsort = evaluation.retrieval_metrics(constant, image_of_caption, ties="argsort")
    assert expected["t2i_r5"] == 0
    # Every query sees the same order, in which five of the twenty images are the first five.
    assert argsort["t2i_r5"] == pytest.approx(25)
    assert argsort["t2i_meanr"] == expected["t2i_meanr"] == pytest.approx(10.5)


def test_scoring_a_split_counts_ties_as_asked(one_device):
    def collapsed(variables, rows, *_):
        return np.full((len(rows), 4), 0.5, np.float32)

    captions = np.zeros((100, 3), np.int32)
    examples = SimpleNamespace(
        images=np.zeros((20, 8, 8, 3), np.uint8),
        tokens=captions,
        lengths=captions[:, 0],
        word_concepts=captions,
        image_of_caption=np.repeat(np.arange(20), 5),
    )
    encoders = evaluation.Encoders(collapsed, collapsed, one_device)
    assert evaluation.score(encoders, {}, examples, 8)[0]["t2i_r5"] == 0
    assert evaluation.score(encoders, {}, examples, 8, "argsort")[0]["t2i_r5"] == pytest.approx(25)


def test_every_way_to_count_ties_can_be_configured_and_is_told_in_the_report():
    assert tuple(reporting.TIES) == config_check._CHOICES["evaluation.ties"] == evaluation.TIES


@pytest.mark.parametrize("ranks", [evaluation.image_to_text_ranks, evaluation.text_to_image_ranks])
def test_an_unknown_way_to_count_ties_is_refused(ranks):
    with pytest.raises(
        ValueError, match="ties is 'first'; it must be one of 'expected', 'argsort'"
    ):
        ranks(np.ones((1, 1), np.float32), np.zeros(1, int), ties="first")


def test_chance_is_what_random_scores_get():
    image_of_caption = np.repeat(np.arange(12), [1, 5, 5, 3, 5, 5, 2, 5, 5, 5, 4, 5])
    chance = evaluation.chance_metrics(image_of_caption)
    trials = [
        evaluation.retrieval_metrics(
            GENERATOR.random((12, len(image_of_caption))), image_of_caption
        )
        for _ in range(3000)
    ]
    for name, value in chance.items():
        assert np.mean([trial[name] for trial in trials]) == pytest.approx(value, abs=0.8)


def test_embeddings_do_not_depend_on_the_batch_size(tiny, one_device):
    state, batch = tiny.state(), tiny.batch()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    encoders = evaluation.make_encoders(tiny.model, one_device)
    images = batch["image"][:, :64, :64]
    texts = (batch["tokens"], batch["lengths"], batch["word_concepts"].astype(np.uint8))
    whole = evaluation.embed_images(encoders, variables, images, 100)
    parts = evaluation.embed_images(encoders, variables, images, 3)
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    assert whole.shape == (8, 16)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        evaluation.embed_texts(encoders, variables, *texts, 3),
        evaluation.embed_texts(encoders, variables, *texts, 100),
        atol=1e-5,
    )
