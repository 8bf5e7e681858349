"""Recalls and ranks of a split against plain loops, and what chance gives."""

import numpy as np
import plain_hits
import pytest

from kamcl_jax.ranking import metrics
from kamcl_jax.ranking import ranks as ranking

GENERATOR = np.random.default_rng(0)


def test_metrics_of_a_perfect_and_of_a_constant_matrix():
    image_of_caption = np.repeat(np.arange(20), 5)
    perfect = (image_of_caption[None] == np.arange(20)[:, None]).astype(np.float32)
    scores = metrics.retrieval_metrics(perfect, image_of_caption)
    assert scores["mR"] == 100
    assert scores["i2t_medr"] == scores["t2i_meanr"] == 1
    constant = metrics.retrieval_metrics(np.ones((20, 100), np.float32), image_of_caption)
    assert constant["t2i_meanr"] == pytest.approx(10.5)
    assert constant["i2t_meanr"] == pytest.approx(1 + 95 / 6)
    assert constant["t2i_r5"] == pytest.approx(25)


@pytest.mark.parametrize("images", [3, 20])
def test_scores_that_are_not_numbers_find_nothing(images):
    image_of_caption = np.repeat(np.arange(images), 2)
    scores = np.full((images, 2 * images), np.nan)
    assert metrics.retrieval_metrics(scores, image_of_caption)["mR"] == 0


@pytest.mark.parametrize("levels", [1, 2, 6, 40])
@pytest.mark.parametrize("num_texts", [12, None])
def test_recalls_of_many_ties_equal_a_count_of_draws(levels, num_texts):
    image_of_caption = GENERATOR.permutation(np.repeat(np.arange(23), 1 + np.arange(23) % 5))
    num_captions = len(image_of_caption)
    texts = None if num_texts is None else GENERATOR.integers(0, num_texts, num_captions)
    right = image_of_caption == np.arange(23)[:, None]
    if texts is not None:
        right = np.stack([np.isin(texts, texts[own]) for own in right])
    similarity = GENERATOR.integers(0, levels, right.shape).astype(np.float32)
    found = metrics.retrieval_metrics(similarity, image_of_caption, text_of_caption=texts)
    for way, scores, mask in (("i2t", similarity, right), ("t2i", similarity.T, right.T)):
        for k in metrics.RECALL_AT:
            hits = plain_hits.of_scores(scores, mask, k)
            assert found[f"{way}_r{k}"] == pytest.approx(100 * np.mean(hits), abs=1e-12)
    assert found["mR"] == pytest.approx(np.mean([found[name] for name in metrics.RECALLS]))


def test_metrics_equal_a_plain_argsort_without_ties():
    image_of_caption = np.repeat(np.arange(30), 5)
    similarity = GENERATOR.permutation(30 * 150).reshape(30, 150).astype(np.float32)
    scores = metrics.retrieval_metrics(similarity, image_of_caption)
    i2t = np.array(
        [
            min(list(np.argsort(-similarity[i])).index(c) for c in range(5 * i, 5 * i + 5))
            for i in range(30)
        ]
    )
    t2i = np.array([list(np.argsort(-similarity[:, c])).index(c // 5) for c in range(150)])
    for way, ranks in (("i2t", i2t), ("t2i", t2i)):
        for k in (1, 5, 10):
            assert scores[f"{way}_r{k}"] == pytest.approx(100 * np.mean(ranks < k))
        assert scores[f"{way}_medr"] == pytest.approx(np.median(ranks) + 1)
        assert scores[f"{way}_meanr"] == pytest.approx(np.mean(ranks) + 1)
    recalls = [scores[f"{way}_r{k}"] for way in ("i2t", "t2i") for k in (1, 5, 10)]
    assert scores["mR"] == pytest.approx(np.mean(recalls))


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
        scores = metrics.retrieval_metrics(similarity, image_of_caption, ties="argsort")
        for way, places in (("i2t", i2t), ("t2i", t2i)):
            for k in (1, 5, 10):
                assert scores[f"{way}_r{k}"] == pytest.approx(100 * np.mean(np.array(places) < k))
            assert scores[f"{way}_medr"] == np.floor(np.median(places)) + 1
            assert scores[f"{way}_meanr"] == pytest.approx(np.mean(places) + 1)


def test_the_releases_median_is_rounded_down():
    # The best captions of four images rank 1, 2, 3 and 4: the median is 2.5, the release's 2.
    ranked = np.array([[4, 0, 0, 1], [3, 2, 0, 1], [4, 3, 2, 1], [4, 3, 2, 1]], np.float32)
    medians = [
        metrics.retrieval_metrics(ranked, np.arange(4), ties)["i2t_medr"] for ties in ranking.TIES
    ]
    assert medians == [2.5, 2.0]


def test_a_collapsed_model_scores_by_the_order_of_the_data_with_argsort_alone():
    image_of_caption = np.repeat(np.arange(20), 5)
    constant = np.ones((20, 100), np.float32)
    expected = metrics.retrieval_metrics(constant, image_of_caption)
    argsort = metrics.retrieval_metrics(constant, image_of_caption, ties="argsort")
    # Every query sees the same order: the images of its first five captions hit, the others miss.
    first_five = np.argsort(np.ones(100))[::-1][:5]
    share = len(np.unique(image_of_caption[first_five])) / 20
    assert argsort["i2t_r5"] == pytest.approx(100 * share)
    assert expected["i2t_r5"] == metrics.chance_metrics(image_of_caption)["i2t_r5"]
    assert argsort["i2t_r5"] != pytest.approx(expected["i2t_r5"], abs=1)
    # Among images, five of the twenty are the first five in any order.
    assert argsort["t2i_r5"] == pytest.approx(25)
    assert argsort["t2i_meanr"] == expected["t2i_meanr"] == pytest.approx(10.5)


@pytest.mark.parametrize("captions", [[5] * 10, [5] * 18, [1], [1, 1], [3, 1, 7, 2, 2, 5]])
@pytest.mark.parametrize("equal_texts", [False, True])
def test_a_collapsed_model_scores_exactly_chance(captions, equal_texts):
    image_of_caption = GENERATOR.permutation(np.repeat(np.arange(len(captions)), captions))
    shape = (len(captions), len(image_of_caption))
    texts = GENERATOR.integers(0, 1 + shape[1] // 2, shape[1]) if equal_texts else None
    collapsed = np.full(shape, 0.5, np.float32)
    found = metrics.retrieval_metrics(collapsed, image_of_caption, text_of_caption=texts)
    for name, chance in metrics.chance_metrics(image_of_caption, texts).items():
        assert found[name] == pytest.approx(chance, abs=1e-12)


@pytest.mark.parametrize("ties", ranking.TIES)
def test_equal_texts_count_where_they_are_told(ties):
    # Both images have a caption "0"; each caption retrieves the other image first.
    image_of_caption, texts = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 2])
    similarity = np.array([[2, 1, 5, 3], [5, 4, 2, 1]], np.float32)
    official = metrics.retrieval_metrics(similarity, image_of_caption, ties)
    equal = metrics.retrieval_metrics(similarity, image_of_caption, ties, texts)
    assert (official["i2t_r1"], official["t2i_r1"]) == (0, 0)
    assert (equal["i2t_r1"], equal["t2i_r1"]) == (100, 50)
    assert (official["i2t_meanr"], equal["i2t_meanr"]) == (3, 1)


def test_chance_is_the_share_of_draws_that_do_not_miss():
    # An image's five captions are right, so all ten draws of 50 miss with C(45, 10) / C(50, 10).
    chance = metrics.chance_metrics(np.arange(50) // 5)
    assert chance["i2t_r10"] == pytest.approx(100 * (1 - 3190187286 / 10272278170))
    assert [chance[f"t2i_r{k}"] for k in metrics.RECALL_AT] == pytest.approx([10, 50, 100])


def test_chance_is_what_random_scores_get():
    image_of_caption = np.repeat(np.arange(12), [1, 5, 5, 3, 5, 5, 2, 5, 5, 5, 4, 5])
    chance = metrics.chance_metrics(image_of_caption)
    trials = [
        metrics.retrieval_metrics(GENERATOR.random((12, len(image_of_caption))), image_of_caption)
        for _ in range(3000)
    ]
    for name, value in chance.items():
        assert np.mean([trial[name] for trial in trials]) == pytest.approx(value, abs=0.8)
