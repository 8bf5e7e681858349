"""Bootstrap intervals against a plain loop and against the binomial distribution."""

import numpy as np
import plain_hits
import pytest

from kamcl_jax.ranking import bootstrap, metrics
from kamcl_jax.ranking.ranks import Ranks

GENERATOR = np.random.default_rng(0)


def random_ranks(captions):
    """Ranks where about two of three queries tie with wrong items."""
    image_of_caption = np.repeat(np.arange(len(captions)), captions)

    def ranks(queries):
        greater, tied_wrong, more_right = GENERATOR.integers(0, [[11], [3], [2]], (3, queries))
        return Ranks(greater, tied_wrong, 1 + more_right)

    return {"i2t": ranks(len(captions)), "t2i": ranks(len(image_of_caption))}, image_of_caption


def plain_intervals(ranks, image_of_caption, resamples, seed):
    """Draws and scores one resample at a time, query by query."""
    generator = np.random.Generator(np.random.PCG64(seed))
    images = len(ranks["i2t"])
    scores = []
    for _ in range(resamples):
        times = generator.multinomial(images, [1 / images] * images)
        drawn = [image for image in range(images) for _ in range(times[image])]
        captions = np.concatenate([np.flatnonzero(image_of_caption == image) for image in drawn])
        recalls = [
            100 * np.mean(plain_hits.of_ranks(of_way, k))
            for of_way in (ranks["i2t"][np.array(drawn)], ranks["t2i"][captions])
            for k in (1, 5, 10)
        ]
        scores.append([*recalls, np.mean(recalls)])
    return np.percentile(scores, [2.5, 97.5], axis=0).T


@pytest.mark.parametrize("cells", [1, 70, 2**20])
def test_intervals_equal_a_plain_loop(cells, monkeypatch):
    monkeypatch.setattr(bootstrap, "_BLOCK_CELLS", cells)
    ranks, image_of_caption = random_ranks([1, 5, 2, 3, 5, 1, 4, 5, 5, 2, 1, 5])
    shuffled = GENERATOR.permutation(len(image_of_caption))
    ranks["t2i"], image_of_caption = ranks["t2i"][shuffled], image_of_caption[shuffled]
    found = bootstrap.intervals(ranks, image_of_caption, resamples=60, seed=3)
    assert list(found) == [*metrics.RECALLS, "mR"]
    np.testing.assert_allclose(
        list(found.values()), plain_intervals(ranks, image_of_caption, 60, seed=3)
    )


def test_equal_seeds_draw_equal_images():
    ranks, image_of_caption = random_ranks([5] * 40)
    draws = [bootstrap.intervals(ranks, image_of_caption, 50, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_the_width_is_that_of_the_binomial_distribution():
    images = 400
    ranks = {
        "i2t": Ranks.untied(np.where(np.arange(images) < 120, 1, 7)),
        "t2i": Ranks.untied(np.full(images, 3)),
    }
    found = bootstrap.intervals(ranks, np.arange(images))
    standard_error = 100 * np.sqrt(0.3 * 0.7 / images)
    low, high = found["i2t_r1"]
    assert low == pytest.approx(30 - 1.96 * standard_error, abs=0.5)
    assert high == pytest.approx(30 + 1.96 * standard_error, abs=0.5)
    assert found["i2t_r5"] == found["i2t_r1"]
    assert found["t2i_r1"] == [0, 0]
    assert found["t2i_r5"] == found["i2t_r10"] == [100, 100]


def test_the_truth_lies_in_about_95_of_100_intervals():
    inside = []
    for _ in range(300):
        hits = GENERATOR.random(100) < 0.4
        ranks = {
            "i2t": Ranks.untied(np.where(hits, 1, 20)),
            "t2i": Ranks.untied(np.ones(100)),
        }
        low, high = bootstrap.intervals(ranks, np.arange(100), resamples=200)["i2t_r1"]
        inside.append(low <= 40 <= high)
    assert 0.90 <= np.mean(inside) <= 0.985


def test_captions_of_an_image_are_not_independent():
    # Five captions that hit or miss together say no more than one does.
    hits = np.where(GENERATOR.random(200) < 0.5, 1, 20)
    ranks = {"i2t": Ranks.untied(hits), "t2i": Ranks.untied(np.repeat(hits, 5))}
    found = bootstrap.intervals(ranks, np.arange(1000) // 5)
    np.testing.assert_allclose(found["t2i_r1"], found["i2t_r1"])
    np.testing.assert_allclose(found["mR"], found["i2t_r1"])


def test_ties_alone_give_an_interval_no_width():
    # Each query ties with one wrong item: a half of them hit at 1, whichever images are drawn.
    counts = np.zeros(30, int), np.ones(30, int), np.ones(30, int)
    found = bootstrap.intervals({"i2t": Ranks(*counts), "t2i": Ranks(*counts)}, np.arange(30))
    assert found["i2t_r1"] == found["t2i_r1"] == pytest.approx([50, 50])
    assert found["i2t_r5"] == found["t2i_r5"] == pytest.approx([100, 100])


def plain_differences(ranks, other_ranks, image_of_caption, resamples, seed):
    """Draws a resample at a time and scores both models on it."""
    generator = np.random.Generator(np.random.PCG64(seed))
    images = len(ranks["i2t"])
    gains = []
    for _ in range(resamples):
        times = generator.multinomial(images, [1 / images] * images)
        weights = {"i2t": times, "t2i": times[image_of_caption]}
        recalls = [
            [
                100 * np.average(plain_hits.of_ranks(of[way], k), weights=weights[way])
                for way in weights
                for k in (1, 5, 10)
            ]
            for of in (ranks, other_ranks)
        ]
        gain = np.subtract(*recalls)
        gains.append([*gain, gain.mean()])
    return np.percentile(gains, [2.5, 97.5], axis=0).T


def test_intervals_of_differences_equal_a_plain_loop():
    ranks, image_of_caption = random_ranks([1, 5, 2, 3, 5, 1, 4, 5, 5, 2, 1, 5])
    other_ranks, _ = random_ranks([1, 5, 2, 3, 5, 1, 4, 5, 5, 2, 1, 5])
    found = bootstrap.difference_intervals(ranks, other_ranks, image_of_caption, 60, seed=3)
    assert list(found) == [*metrics.RECALLS, "mR"]
    np.testing.assert_allclose(
        list(found.values()),
        plain_differences(ranks, other_ranks, image_of_caption, 60, seed=3),
        atol=1e-10,
    )
    turned = bootstrap.difference_intervals(other_ranks, ranks, image_of_caption, 60, seed=3)
    for name, (low, high) in found.items():
        assert turned[name] == pytest.approx([-high, -low])


def test_what_all_models_find_hard_widens_no_interval_of_a_difference():
    # The second model finds what the first does, and five images of a hundred more.
    hits = Ranks.untied(np.where(np.arange(100) < 40, 1, 20))
    more = Ranks.untied(np.where(np.arange(100) < 45, 1, 20))
    ranks, other_ranks = ({"i2t": one, "t2i": one} for one in (more, hits))
    low, high = bootstrap.difference_intervals(ranks, other_ranks, np.arange(100))["mR"]
    alone = bootstrap.intervals(other_ranks, np.arange(100))["mR"]
    assert 0 <= low < 5 < high
    assert high - low < (alone[1] - alone[0]) / 2
    same = bootstrap.difference_intervals(ranks, ranks, np.arange(100))
    assert set(map(tuple, same.values())) == {(0.0, 0.0)}
