"""Metrics, chance, bootstrap intervals and scene classes against plain loops."""

import numpy as np
import plain_hits
import pytest

from kamcl_jax.ranking import metrics
from kamcl_jax.ranking.ranks import TIES, Ranks

GENERATOR = np.random.default_rng(0)


def one_rank_an_image(ranks):
    return {"i2t": Ranks.untied(ranks), "t2i": Ranks.untied(ranks)}


class TestRecalls:
    @pytest.mark.parametrize("levels", [1, 2, 6, 40])
    @pytest.mark.parametrize("num_texts", [12, None])
    def test_recalls_of_many_ties_equal_a_count_of_draws(self, levels, num_texts):
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
                expected = plain_hits.recall(plain_hits.ranks(scores, mask), k)
                assert found[f"{way}_r{k}"] == pytest.approx(expected, abs=1e-12)
        assert found["mR"] == pytest.approx(np.mean([found[name] for name in metrics.RECALLS]))

    @pytest.mark.parametrize("ties", TIES)
    def test_medians_and_means_are_those_of_the_expected_ranks(self, ties):
        ranks = random_ranks(np.arange(40) // 2)
        found = metrics.metrics_of_ranks(ranks, ties)
        for way, of_way in ranks.items():
            places = 1 + of_way.greater + of_way.tied_irrelevant / (1 + of_way.tied_relevant)
            assert found[f"{way}_meanr"] == pytest.approx(np.mean(places))
            # The release rounds the median down.
            rounded = np.floor if ties == "argsort" else np.asarray
            assert found[f"{way}_medr"] == pytest.approx(rounded(np.median(places)))


class TestChance:
    @pytest.mark.parametrize("captions", [[5] * 18, [1], [3, 1, 7, 2, 2, 5]])
    @pytest.mark.parametrize("equal_texts", [False, True])
    def test_a_collapsed_model_scores_exactly_chance(self, captions, equal_texts):
        image_of_caption = GENERATOR.permutation(np.repeat(np.arange(len(captions)), captions))
        shape = (len(captions), len(image_of_caption))
        texts = GENERATOR.integers(0, 1 + shape[1] // 2, shape[1]) if equal_texts else None
        collapsed = np.full(shape, 0.5, np.float32)
        found = metrics.retrieval_metrics(collapsed, image_of_caption, text_of_caption=texts)
        for name, chance in metrics.chance_metrics(image_of_caption, texts).items():
            assert found[name] == pytest.approx(chance, abs=1e-12)


CAPTIONS = [1, 5, 2, 3, 5, 1, 4, 5, 5, 2, 1, 5]


def random_ranks(image_of_caption):
    """Ranks where about two of three queries tie with irrelevant items."""

    def ranks(queries):
        greater, irrelevant, more = GENERATOR.integers(0, [[11], [3], [2]], (3, queries))
        return Ranks(greater, irrelevant, 1 + more)

    return {"i2t": ranks(1 + image_of_caption.max()), "t2i": ranks(len(image_of_caption))}


def plain_resamples(ranks, image_of_caption, resamples, seed):
    """Draws and scores one resample at a time, query by query: [resamples, 7]."""
    generator = np.random.Generator(np.random.PCG64(seed))
    images = len(ranks["i2t"])
    scores = []
    for _ in range(resamples):
        times = generator.multinomial(images, [1 / images] * images)
        drawn = [image for image in range(images) for _ in range(times[image])]
        captions = np.concatenate([np.flatnonzero(image_of_caption == image) for image in drawn])
        recalls = [
            plain_hits.recall(of_way, k)
            for of_way in (ranks["i2t"][np.array(drawn)], ranks["t2i"][captions])
            for k in (1, 5, 10)
        ]
        scores.append([*recalls, np.mean(recalls)])
    return np.array(scores)


def assert_between_percentiles(found, resamples):
    assert list(found) == [*metrics.RECALLS, "mR"]
    expected = np.percentile(resamples, [2.5, 97.5], axis=0).T
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-10)


class TestBootstrap:
    @pytest.mark.parametrize("cells", [1, 70, 2**20])
    def test_intervals_equal_a_plain_loop(self, cells, monkeypatch):
        monkeypatch.setattr(metrics, "_BLOCK_CELLS", cells)
        image_of_caption = GENERATOR.permutation(np.repeat(np.arange(12), CAPTIONS))
        ranks = random_ranks(image_of_caption)
        found = metrics.bootstrap_intervals(ranks, image_of_caption, resamples=60, seed=3)
        assert_between_percentiles(found, plain_resamples(ranks, image_of_caption, 60, seed=3))

    def test_intervals_of_differences_equal_a_plain_loop(self):
        image_of_caption = np.repeat(np.arange(12), CAPTIONS)
        both = random_ranks(image_of_caption), random_ranks(image_of_caption)
        found = metrics.bootstrap_differences(*([one] for one in both), image_of_caption, 60, 3)
        one, other = (plain_resamples(ranks, image_of_caption, 60, seed=3) for ranks in both)
        assert_between_percentiles(found, one - other)

    def test_several_trainings_of_a_model_are_averaged(self):
        image_of_caption = np.repeat(np.arange(12), CAPTIONS)
        several = [[random_ranks(image_of_caption) for _ in range(count)] for count in (3, 2)]
        found = metrics.bootstrap_differences(*several, image_of_caption, 60, seed=3)
        one, other = (
            np.mean([plain_resamples(x, image_of_caption, 60, seed=3) for x in each], axis=0)
            for each in several
        )
        assert_between_percentiles(found, one - other)


class TestSceneClasses:
    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (
                ["airport_12.jpg", "sparse_residential_3.png", "agricultural00.tif"],
                ["airport", "sparse_residential", "agricultural"],
            ),
            (
                ["airport (7).jpg", "beach-3.jpg", "Meadow.png", "00012.jpg", "1_2.tif"],
                ["airport", "beach", "Meadow", None, None],
            ),
            (["airplane/airplane_001.jpg", "beach/img7.jpg"], ["airplane", "beach"]),
            (["all\\beach\\1.jpg", "all\\port\\1.jpg"], ["beach", "port"]),
            (
                ["beach/1.jpg", "port/1.jpg", "river_3.jpg", "4.jpg"],
                ["beach", "port", "river", None],
            ),
            (["test/airport_1.jpg", "test/beach_2.jpg"], ["airport", "beach"]),
            (["part/0/airport_1.jpg", "part/1/beach_2.jpg"], ["airport", "beach"]),
        ],
    )
    def test_the_class_is_a_folder_or_the_name_without_its_trailing_number(self, names, expected):
        assert metrics.scene_classes(iter(names)) == expected

    @pytest.mark.parametrize(
        "names",
        [
            ["img_001.jpg", "img_002.jpg", "img_003.jpg", "img_004.jpg"],
            ["test/1.jpg", "test/2.jpg", "test/3.jpg", "test/4.jpg"],
            ["airport_1.jpg", "airport_2.jpg", "3.jpg", "4.jpg"],
            ["quiet-morning.jpg", "old_town.jpg", "the_pier.jpg", "a1b2c3.jpg"],
        ],
    )
    def test_names_without_two_classes_give_no_rows(self, names):
        ranks = one_rank_an_image([1, 1, 1, 1])
        assert metrics.recalls_of_classes(names, np.arange(4), ranks) is None

    def test_each_class_has_the_recalls_of_its_own_queries(self):
        kinds = np.array(["port", "beach", "7", "port", "beach", "beach", "8"])
        names = [
            f"{kind}_{i}.jpg" if kind.isalpha() else f"{kind}.jpg" for i, kind in enumerate(kinds)
        ]
        image_of_caption = np.array([6, 0, 0, 0, 1, 2, 2, 3, 4, 4, 5, 6])
        ranks = random_ranks(image_of_caption)
        rows = metrics.recalls_of_classes(names, image_of_caption, ranks)
        assert [row["class"] for row in rows] == ["beach", "port", metrics.NO_CLASS]
        for row, kind in zip(rows, (["beach"], ["port"], ["7", "8"]), strict=True):
            images = np.flatnonzero(np.isin(kinds, kind))
            captions = [c for c, image in enumerate(image_of_caption) if image in images]
            assert (row["images"], row["captions"]) == (len(images), len(captions))
            for way, queries in (("i2t", images), ("t2i", captions)):
                for k in (1, 5, 10):
                    expected = plain_hits.recall(ranks[way][queries], k)
                    assert row[f"{way}_r{k}"] == pytest.approx(expected)
            assert row["mR"] == pytest.approx(np.mean([row[name] for name in metrics.RECALLS]))
