"""Ranks against enumeration and plain loops, with ties and captions of equal text."""

import dataclasses
import itertools
import math
import tracemalloc
import weakref
from fractions import Fraction

import jax
import numpy as np
import pytest

from kamcl_jax.ranking import ranks as ranking
from kamcl_jax.ranking.ranks import Ranks
from kamcl_jax.ranking.scores import Embeddings, Matrix

GENERATOR = np.random.default_rng(0)
ONE_TO_THREE = np.array([2, 0, 0, 1, 2, 2, 3])
"""Captions of four images, one to three each, in no order."""


def first_places(scores, right):
    """Place of the first right item in each order of the tied items, by enumeration."""
    best = max(scores[i] for i in right)
    ahead = sum(score > best for score in scores)
    tied = [i for i, score in enumerate(scores) if score == best]
    orders = itertools.permutations(tied)
    return [1 + ahead + min(order.index(i) for i in right if i in tied) for order in orders]


def release_places(scores, right):
    """Place of the first of the right items, by the release's steps, one at a time."""
    order = np.argsort(np.array(scores, np.float64))[::-1].tolist()
    return [1 + min(order.index(item) for item in right)]


def matching(image_of_caption, texts, num_images):
    """bool[N, M]: whether one of the image's captions says the same, pair by pair."""
    return np.array(
        [
            [
                any(texts[own] == text for own, of in enumerate(image_of_caption) if of == image)
                for text in texts
            ]
            for image in range(num_images)
        ]
    )


def assert_ranks_equal(found, expected):
    for way in ranking.WAYS:
        for field in dataclasses.fields(Ranks):
            np.testing.assert_array_equal(
                getattr(found[way], field.name),
                getattr(expected[way], field.name),
                err_msg=f"{way} {field.name}",
            )


@pytest.mark.parametrize("greater", [0, 1, 3])
@pytest.mark.parametrize("tied_wrong", [0, 1, 4])
@pytest.mark.parametrize("tied_right", [1, 2, 3])
def test_ranks_are_those_of_all_orders_of_the_tied(greater, tied_wrong, tied_right):
    tied = tied_wrong + tied_right
    first = [min(places) for places in itertools.combinations(range(tied), tied_right)]
    ranks = Ranks(*(np.array([count]) for count in (greater, tied_wrong, tied_right)))
    np.testing.assert_allclose(ranks.expected(), 1 + greater + np.mean(first))
    for k in range(greater + tied + 3):
        hits = np.mean([greater + place < k for place in first])
        np.testing.assert_allclose(ranks.hit_probability(k), hits, rtol=1e-14)


def test_one_right_and_one_wrong_that_tie_are_half_a_hit():
    ranks = ranking.both_ways(np.ones((2, 2), np.float32), np.arange(2))
    for way in ranking.WAYS:
        np.testing.assert_array_equal(ranks[way].expected(), 1.5)
        np.testing.assert_array_equal(ranks[way].hit_probability(1), 0.5)
        np.testing.assert_array_equal(ranks[way].hit_probability(2), 1)
        with pytest.raises(TypeError):
            _ = ranks[way] <= 1


@pytest.mark.parametrize("tied_right", [1, 5, 10**6])
@pytest.mark.parametrize("k", [1, 10])
def test_hits_among_millions_of_tied_items_are_exact(tied_right, k):
    tied_wrong = 5 * 10**6
    ranks = Ranks(*(np.array([count], np.int32) for count in (0, tied_wrong, tied_right)))
    misses = Fraction(math.comb(tied_wrong, k), math.comb(tied_wrong + tied_right, k))
    np.testing.assert_allclose(ranks.hit_probability(k), float(1 - misses), rtol=1e-14)


def test_untied_ranks_hit_or_miss():
    places = GENERATOR.permutation(30) + 1
    ranks = Ranks.untied(places)
    assert len(ranks) == 30
    np.testing.assert_array_equal(ranks.expected(), places)
    np.testing.assert_array_equal(ranks[places > 4].expected(), places[places > 4])
    for k in (0, 1, 10, 40):
        np.testing.assert_array_equal(ranks.hit_probability(k), places <= k)


@pytest.mark.parametrize(
    ("ties", "places"), zip(ranking.TIES, (first_places, release_places), strict=True)
)
@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("num_texts", [1, 3, None])
def test_ranks_equal_plain_loops(levels, num_texts, ties, places):
    for _ in range(20):
        similarity = GENERATOR.integers(0, levels, (4, 7)).astype(np.float32)
        texts = None if num_texts is None else 10 * GENERATOR.integers(0, num_texts, 7)
        right = matching(ONE_TO_THREE, np.arange(7) if texts is None else texts, 4)
        found = ranking.both_ways(similarity, ONE_TO_THREE, ties, texts)
        for way, scores, mask in (("i2t", similarity, right), ("t2i", similarity.T, right.T)):
            expected = [
                places(list(row), np.flatnonzero(of_row))
                for row, of_row in zip(scores, mask, strict=True)
            ]
            np.testing.assert_allclose(found[way].expected(), list(map(np.mean, expected)))
            for k in range(1, 9):
                hits = [np.mean(np.array(of_query) <= k) for of_query in expected]
                np.testing.assert_allclose(found[way].hit_probability(k), hits, rtol=1e-14)


def masked_ranks(scores, right):
    """Ranks of the rows' right items, all at once, by a mask as large as the scores."""
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    greater = (~(scores <= best)).sum(axis=1)
    tied, right_tied = ((scores == best) & mask for mask in (~right, right))
    return Ranks(greater, tied.sum(axis=1), right_tied.sum(axis=1))


def random_scores(shape, levels):
    """Many ties, some infinities, some values that are no numbers."""
    scores = GENERATOR.integers(0, levels, shape).astype(np.float32)
    odd = GENERATOR.random(shape)
    scores[odd < 0.06], scores[odd < 0.04], scores[odd < 0.02] = np.inf, -np.inf, np.nan
    return scores


def texts_of(kind, image_of_caption):
    """No text twice, some texts often, one text that all images share, or one text alone."""
    texts = 7 * GENERATOR.permutation(len(image_of_caption))
    if kind == "some":
        texts = GENERATOR.integers(0, 1 + len(texts) // 3, len(texts))
    elif kind == "shared by all images":
        texts[np.unique(image_of_caption, return_index=True)[1]] = 3
    elif kind == "one":
        texts[:] = 5
    return texts


@pytest.mark.parametrize("kind", ["distinct", "some", "shared by all images", "one"])
@pytest.mark.parametrize(("cells", "pairs"), [(2**25, 2**21), (211, 2**21), (90, 13)])
def test_ranks_equal_those_by_a_mask(kind, cells, pairs, monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK_CELLS", cells)
    monkeypatch.setattr(ranking, "PAIRS_PER_BLOCK", pairs)
    image_of_caption = GENERATOR.permutation(np.repeat(np.arange(17), 1 + np.arange(17) % 4))
    texts = texts_of(kind, image_of_caption)
    right = matching(image_of_caption, texts, 17)
    own = matching(image_of_caption, np.arange(len(texts)), 17)
    for levels in (1, 4, 1000):
        scores = random_scores(right.shape, levels)
        found = ranking.both_ways_for_each(Matrix(scores), image_of_caption, [None, texts])
        for ranks, mask in zip(found, (own, right), strict=True):
            expected = {"i2t": masked_ranks(scores, mask), "t2i": masked_ranks(scores.T, mask.T)}
            assert_ranks_equal(ranks, expected)


@pytest.mark.parametrize("ties", ranking.TIES)
@pytest.mark.parametrize("cells", [2**25, 150])
def test_embeddings_rank_as_the_matrix_of_their_products(ties, cells, monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK_CELLS", cells)
    image_of_caption = np.repeat(np.arange(17), 1 + np.arange(17) % 4)
    # Products of small whole numbers are exact in any order, and many are the same.
    images, captions = (
        GENERATOR.integers(-1, 2, (count, 4)).astype(np.float32)
        for count in (17, len(image_of_caption))
    )
    texts = texts_of("some", image_of_caption)
    for of_caption in (None, texts):
        assert_ranks_equal(
            ranking.both_ways(Embeddings(images, captions), image_of_caption, ties, of_caption),
            ranking.both_ways(images @ captions.T, image_of_caption, ties, of_caption),
        )


@pytest.mark.parametrize("cells", [2**25, 777])
def test_equal_embeddings_tie_to_the_last_bit_whatever_their_place(cells, monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK_CELLS", cells)
    collapsed = GENERATOR.standard_normal((1, 64)).astype(np.float32)
    images, captions = np.repeat(collapsed, 37, axis=0), np.repeat(collapsed, 111, axis=0)
    ranks = ranking.both_ways(Embeddings(images, captions), np.arange(111) // 3)
    np.testing.assert_array_equal(ranks["i2t"].expected(), 1 + 108 / 4)
    np.testing.assert_array_equal(ranks["t2i"].expected(), 1 + 36 / 2)


class Watched(Embeddings):
    """Remembers the sizes of blocks and how many are alive when the next is asked for."""

    def __init__(self, images, captions):
        super().__init__(images, captions)
        object.__setattr__(self, "sizes", [])
        object.__setattr__(self, "alive", [0])
        object.__setattr__(self, "blocks", [])

    def on_device(self):
        return self

    def _watch(self, block):
        self.alive.append(sum(known() is not None for known in self.blocks))
        self.blocks.append(weakref.ref(block))
        self.sizes.append(block.size)
        return block

    def rows(self, images):
        return self._watch(super().rows(images))

    def columns(self, captions):
        return self._watch(super().columns(captions))


@pytest.mark.parametrize("texts", [None, np.zeros(900, int)])
def test_no_more_scores_are_held_than_two_blocks(texts, monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK_CELLS", 2**13)
    monkeypatch.setattr(ranking, "PAIRS_PER_BLOCK", 2**11)
    images, captions = np.ones((300, 2), np.float32), np.ones((900, 2), np.float32)
    watched = Watched(images, captions)
    ranking.both_ways(watched, np.arange(900) // 3, text_of_caption=texts)
    assert len(watched.sizes) >= 300 * 900 * 2 / 2**13
    assert max(watched.sizes) <= 2**13
    assert max(watched.alive) <= 1  # and the one that is made then


def test_counting_needs_no_second_block_of_scores():
    block = jax.ShapeDtypeStruct((64, 4096), np.float32)
    pairs = jax.ShapeDtypeStruct((256,), np.int32)
    memory = ranking._counts.lower(block, [(pairs, pairs)]).compile().memory_analysis()
    assert memory.temp_size_in_bytes < block.size


def test_lists_of_right_answers_are_parted_where_one_text_is_everywhere(monkeypatch):
    monkeypatch.setattr(ranking, "PAIRS_PER_BLOCK", 1000)
    listed = []
    padded = ranking._padded
    monkeypatch.setattr(
        ranking,
        "_padded",
        lambda pairs, queries: listed.append(len(pairs[0])) or padded(pairs, queries),
    )
    scores = GENERATOR.random((60, 300), np.float32)
    ranks = ranking.both_ways(scores, np.arange(300) // 5, text_of_caption=np.zeros(300))
    assert max(listed) <= 1000
    for way in ranking.WAYS:
        np.testing.assert_array_equal(ranks[way].expected(), 1)


def random_split(levels, num_images=30, num_texts=40):
    """A score matrix, images and texts of captions; every image has one to five captions."""
    captions = GENERATOR.integers(1, 6, num_images)
    image_of_caption = np.repeat(np.arange(num_images), captions)
    num_captions = len(image_of_caption)
    similarity = GENERATOR.integers(0, levels, (num_images, num_captions)).astype(np.float32)
    return similarity, image_of_caption, GENERATOR.integers(0, num_texts, num_captions)


@pytest.mark.parametrize("ties", ranking.TIES)
@pytest.mark.parametrize("cells", [1, 100, 1000])
def test_blocks_change_nothing(ties, cells, monkeypatch):
    similarity, image_of_caption, texts = random_split(levels=5)
    for of_caption in (None, texts):
        whole = ranking.both_ways(similarity, image_of_caption, ties, of_caption)
        with monkeypatch.context() as patch:
            patch.setattr(ranking, "BLOCK_CELLS", cells)
            assert_ranks_equal(
                ranking.both_ways(similarity, image_of_caption, ties, of_caption), whole
            )


@pytest.mark.parametrize("ties", ranking.TIES)
def test_memory_is_bounded_by_the_block_not_by_the_scores(ties, monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK_CELLS", 2**14)
    image_of_caption = np.repeat(np.arange(400), 20)
    similarity = GENERATOR.random((400, 8000), np.float32)
    tracemalloc.start()
    try:
        ranking.both_ways(similarity, image_of_caption, ties, np.arange(8000) // 2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < similarity.size / 2  # a second matrix has a byte an element at least


@pytest.mark.parametrize("ties", ranking.TIES)
def test_distinct_texts_are_the_official_protocol(ties):
    similarity, image_of_caption, _ = random_split(levels=5)
    distinct = GENERATOR.permutation(len(image_of_caption))
    official = ranking.both_ways(similarity, image_of_caption, ties)
    assert_ranks_equal(ranking.both_ways(similarity, image_of_caption, ties, distinct), official)


@pytest.mark.parametrize("ties", ranking.TIES)
def test_more_captions_of_equal_text_only_help(ties):
    similarity, image_of_caption, _ = random_split(levels=5)
    texts = np.arange(len(image_of_caption))
    before = ranking.both_ways(similarity, image_of_caption, ties, texts)
    for merged in (3, 2):  # texts // 3 // 2 merges what texts // 3 had merged already
        texts = texts // merged
        after = ranking.both_ways(similarity, image_of_caption, ties, texts)
        for way in ranking.WAYS:
            assert np.all(after[way].expected() <= before[way].expected())
            assert np.any(after[way].expected() < before[way].expected())
            for k in (1, 5, 10):
                likelier = after[way].hit_probability(k) - before[way].hit_probability(k)
                assert np.all(likelier > -1e-14)
        before = after


def test_the_order_of_images_and_captions_changes_nothing():
    similarity, image_of_caption, texts = random_split(levels=5)
    images = GENERATOR.permutation(similarity.shape[0])
    captions = GENERATOR.permutation(similarity.shape[1])
    place_of_image = np.argsort(images)
    for of_caption in (None, texts):
        ranks = ranking.both_ways(similarity, image_of_caption, text_of_caption=of_caption)
        moved = ranking.both_ways(
            similarity[images][:, captions],
            place_of_image[image_of_caption[captions]],
            text_of_caption=None if of_caption is None else of_caption[captions],
        )
        assert_ranks_equal(moved, {"i2t": ranks["i2t"][images], "t2i": ranks["t2i"][captions]})


def test_scores_that_are_not_numbers_rank_behind_everything():
    similarity, image_of_caption, texts = random_split(levels=5)
    similarity[3] = np.nan
    for of_caption in (None, texts):
        ranks = ranking.both_ways(similarity, image_of_caption, text_of_caption=of_caption)
        own = image_of_caption == 3
        lost_captions = own if of_caption is None else np.isin(texts, texts[own])
        for way, lost, gallery in (
            ("i2t", np.arange(30) == 3, similarity.shape[1]),
            ("t2i", lost_captions, similarity.shape[0]),
        ):
            assert np.all(ranks[way][lost].expected() > gallery)
            # No k finds them, also where it takes in the whole gallery.
            for k in (gallery, gallery + 5):
                np.testing.assert_array_equal(ranks[way].hit_probability(k), ~lost)


def test_ways_to_count_ties_agree_where_there_are_none():
    image_of_caption = np.repeat(np.arange(12), [1, 5, 5, 3, 5, 5, 2, 5, 5, 5, 4, 5])
    shape = (12, len(image_of_caption))
    similarity = GENERATOR.permutation(np.prod(shape)).reshape(shape).astype(np.float32)
    expected, argsort = (
        ranking.both_ways(similarity, image_of_caption, ties) for ties in ranking.TIES
    )
    assert_ranks_equal(argsort, expected)


@pytest.mark.parametrize("ranks", [ranking.image_to_text_ranks, ranking.text_to_image_ranks])
def test_an_unknown_way_to_count_ties_is_refused(ranks):
    with pytest.raises(
        ValueError, match="ties is 'first'; it must be one of 'expected', 'argsort'"
    ):
        ranks(np.ones((1, 1), np.float32), np.zeros(1, int), ties="first")
