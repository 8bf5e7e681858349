"""Scene classes in file names, and the recalls of each."""

import numpy as np
import plain_hits
import pytest

from kamcl_jax.ranking import metrics, scene_classes
from kamcl_jax.ranking.ranks import Ranks


@pytest.mark.parametrize(
    ("name", "scene_class"),
    [
        ("airport_12.jpg", "airport"),
        ("baseballfield_001.tif", "baseballfield"),
        ("sparse_residential_3.png", "sparse_residential"),
        ("agricultural00.tif", "agricultural"),
        ("airport (7).jpg", "airport"),
        ("beach-3.jpg", "beach"),
        ("Meadow.png", "Meadow"),
        ("00012.jpg", None),
        ("12.tif", None),
        ("1_2.tif", None),
    ],
)
def test_the_class_is_the_name_without_its_trailing_number(name, scene_class):
    assert scene_classes.of_file_names([name, "forest_1.jpg"]) == [scene_class, "forest"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["airplane/airplane_001.jpg", "beach/img7.jpg"], ["airplane", "beach"]),
        (["all\\beach\\1.jpg", "all\\port\\1.jpg"], ["beach", "port"]),
        (["beach/1.jpg", "port/1.jpg", "river_3.jpg", "4.jpg"], ["beach", "port", "river", None]),
        (["test/airport_1.jpg", "test/beach_2.jpg"], ["airport", "beach"]),
        (["test/airport_1.jpg", "00012.jpg"], ["airport", None]),
        (["part/0/airport_1.jpg", "part/1/beach_2.jpg"], ["airport", "beach"]),
    ],
)
def test_folders_are_classes_where_they_differ(names, expected):
    assert scene_classes.of_file_names(iter(names)) == expected


def one_rank_an_image(ranks):
    return {"i2t": Ranks.untied(ranks), "t2i": Ranks.untied(ranks)}


@pytest.mark.parametrize(
    "names",
    [
        ["img_001.jpg", "img_002.jpg", "img_003.jpg", "img_004.jpg"],
        ["1.jpg", "2.jpg", "3.jpg", "4.jpg"],
        ["test/1.jpg", "test/2.jpg", "test/3.jpg", "test/4.jpg"],
        ["airport_1.jpg", "airport_2.jpg", "3.jpg", "4.jpg"],
        ["quiet-morning.jpg", "old_town.jpg", "the_pier.jpg", "a1b2c3.jpg"],
    ],
)
def test_names_without_two_classes_give_no_breakdown(names):
    ranks = one_rank_an_image([1, 1, 1, 1])
    assert scene_classes.breakdown(names, np.arange(4), ranks) is None


def test_each_class_has_the_recalls_of_its_own_queries():
    generator = np.random.default_rng(0)
    kinds = np.array(["port", "beach", "7", "port", "beach", "beach", "8"])
    names = [f"{kind}_{i}.jpg" if kind.isalpha() else f"{kind}.jpg" for i, kind in enumerate(kinds)]
    image_of_caption = np.array([6, 0, 0, 0, 1, 2, 2, 3, 4, 4, 5, 6])
    # Up to ten greater, three wrong ones that tie, and one to three right ones.
    ranks = {
        way: Ranks(*generator.integers([[0], [0], [1]], [[11], [4], [4]], (3, queries)))
        for way, queries in (("i2t", 7), ("t2i", 12))
    }
    rows = scene_classes.breakdown(names, image_of_caption, ranks)
    assert [row["class"] for row in rows] == ["beach", "port", scene_classes.NO_CLASS]
    for row, kind in zip(rows, (["beach"], ["port"], ["7", "8"]), strict=True):
        images = np.flatnonzero(np.isin(kinds, kind))
        captions = [c for c, image in enumerate(image_of_caption) if image in images]
        assert (row["images"], row["captions"]) == (len(images), len(captions))
        for way, queries in (("i2t", images), ("t2i", captions)):
            for k in (1, 5, 10):
                found = plain_hits.of_ranks(ranks[way][queries], k)
                assert row[f"{way}_r{k}"] == pytest.approx(100 * np.mean(found))
        assert row["mR"] == pytest.approx(np.mean([row[name] for name in metrics.RECALLS]))


def test_classes_together_make_the_whole():
    ranks = one_rank_an_image(np.random.default_rng(1).integers(1, 20, 40))
    names = [f"{'abcd'[i % 4]}_{i}.jpg" for i in range(40)]
    rows = scene_classes.breakdown(names, np.arange(40), ranks)
    whole = metrics.recalls(ranks)
    for name in (*metrics.RECALLS, "mR"):
        shares = [row["images"] * row[name] / 40 for row in rows]
        assert sum(shares) == pytest.approx(whole[name])
