"""Ranks against enumeration and plain loops, with ties and captions of equal text."""

import dataclasses
import itertools
import math
import tracemalloc
import weakref
from fractions import Fraction

import jax
import numpy as np
import plain_hits
import pytest

from kamcl_jax.ranking import ranks as module
from kamcl_jax.ranking.ranks import TIES, WAYS, Ranks, rank_both_ways, rank_with_texts
from kamcl_jax.ranking.scores import Embeddings, Matrix

GENERATOR = np.random.default_rng(0)
ONE_TO_THREE = np.array([2, 0, 0, 1, 2, 2, 3])
"""Captions of four images, one to three each, in no order."""


def release_place(scores, relevant):
    """Place of the first of the relevant items, by the release's steps, one at a time."""
    order = np.argsort(np.array(scores, np.float64))[::-1].tolist()
    return 1 + min(order.index(item) for item in relevant)


def matching(image_of_caption, texts, num_images):
    """bool[N, M]: whether one of the image's captions says the same."""
    of_image = [texts[image_of_caption == image] for image in range(num_images)]
    return np.stack([np.isin(texts, own) for own in of_image])


def assert_ranks_equal(found, expected):
    for way in WAYS:
        counts = (dataclasses.astuple(ranks[way]) for ranks in (found, expected))
        np.testing.assert_array_equal(*counts, err_msg=way)


@pytest.mark.parametrize("greater", [0, 1, 3])
@pytest.mark.parametrize("tied_irrelevant", [0, 1, 4])
@pytest.mark.parametrize("tied_relevant", [1, 2, 3])
def test_ranks_are_those_of_all_orders_of_the_tied(greater, tied_irrelevant, tied_relevant):
    tied = tied_irrelevant + tied_relevant
    first = [min(places) for places in itertools.combinations(range(tied), tied_relevant)]
    ranks = Ranks(*(np.array([count]) for count in (greater, tied_irrelevant, tied_relevant)))
    np.testing.assert_allclose(ranks.expected(), 1 + greater + np.mean(first))
    for k in range(greater + tied + 3):
        hits = np.mean([greater + place < k for place in first])
        np.testing.assert_allclose(ranks.hit_probability(k), hits, rtol=1e-14)


@pytest.mark.parametrize("tied_relevant", [1, 5, 10**6])
@pytest.mark.parametrize("k", [1, 10])
def test_hits_among_millions_of_tied_items_are_exact(tied_relevant, k):
    tied_irrelevant = 5 * 10**6
    ranks = Ranks(*(np.array([count], np.int32) for count in (0, tied_irrelevant, tied_relevant)))
    misses = Fraction(math.comb(tied_irrelevant, k), math.comb(tied_irrelevant + tied_relevant, k))
    np.testing.assert_allclose(ranks.hit_probability(k), float(1 - misses), rtol=1e-14)


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("num_texts", [1, 3, None])
@pytest.mark.parametrize("cells", [2**25, 9])
def test_ranks_of_sorted_scores_are_those_of_the_release(levels, num_texts, cells, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_CELLS", cells)
    for _ in range(10):
        similarity = GENERATOR.integers(0, levels, (4, 7)).astype(np.float32)
        texts = None if num_texts is None else 10 * GENERATOR.integers(0, num_texts, 7)
        relevant = matching(ONE_TO_THREE, np.arange(7) if texts is None else texts, 4)
        found = rank_both_ways(similarity, ONE_TO_THREE, "argsort", texts)
        for way, scores, mask in (("i2t", similarity, relevant), ("t2i", similarity.T, relevant.T)):
            rows = zip(scores, mask, strict=True)
            expected = [release_place(row, np.flatnonzero(of_row)) for row, of_row in rows]
            np.testing.assert_array_equal(found[way].expected(), expected)


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
    monkeypatch.setattr(module, "BLOCK_CELLS", cells)
    monkeypatch.setattr(module, "PAIRS_PER_BLOCK", pairs)
    image_of_caption = GENERATOR.permutation(np.repeat(np.arange(17), 1 + np.arange(17) % 4))
    texts = texts_of(kind, image_of_caption)
    relevant = matching(image_of_caption, texts, 17)
    own = matching(image_of_caption, np.arange(len(texts)), 17)
    for levels in (1, 4, 1000):
        scores = random_scores(relevant.shape, levels)
        found = rank_with_texts(Matrix(scores), image_of_caption, [None, texts])
        for ranks, mask in zip(found, (own, relevant), strict=True):
            expected = {
                "i2t": plain_hits.ranks(scores, mask),
                "t2i": plain_hits.ranks(scores.T, mask.T),
            }
            assert_ranks_equal(ranks, expected)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("cells", [2**25, 150])
def test_embeddings_rank_as_the_matrix_of_their_products(ties, cells, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_CELLS", cells)
    image_of_caption = np.repeat(np.arange(17), 1 + np.arange(17) % 4)
    # Products of small whole numbers are exact in any order, and many are the same.
    images, captions = (
        GENERATOR.integers(-1, 2, (count, 4)).astype(np.float32)
        for count in (17, len(image_of_caption))
    )
    texts = texts_of("some", image_of_caption)
    for of_caption in (None, texts):
        assert_ranks_equal(
            rank_both_ways(Embeddings(images, captions), image_of_caption, ties, of_caption),
            rank_both_ways(images @ captions.T, image_of_caption, ties, of_caption),
        )


@pytest.mark.parametrize("cells", [2**25, 777])
def test_equal_embeddings_tie_to_the_last_bit_whatever_their_place(cells, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_CELLS", cells)
    collapsed = GENERATOR.standard_normal((1, 64)).astype(np.float32)
    images, captions = np.repeat(collapsed, 37, axis=0), np.repeat(collapsed, 111, axis=0)
    ranks = rank_both_ways(Embeddings(images, captions), np.arange(111) // 3)
    np.testing.assert_array_equal(ranks["i2t"].expected(), 1 + 108 / 4)
    np.testing.assert_array_equal(ranks["t2i"].expected(), 1 + 36 / 2)


@pytest.mark.parametrize("texts", [None, np.zeros(900, int)])
def test_no_more_scores_are_held_than_two_blocks(texts, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_CELLS", 2**13)
    monkeypatch.setattr(module, "PAIRS_PER_BLOCK", 2**11)
    sizes, blocks = [], []

    def watched(method):
        def made(embeddings, block):
            assert sum(known() is not None for known in blocks) <= 1  # and the one that is made now
            scores = method(embeddings, block)
            blocks.append(weakref.ref(scores))
            sizes.append(scores.size)
            return scores

        return made

    for name in ("rows", "columns"):
        monkeypatch.setattr(Embeddings, name, watched(getattr(Embeddings, name)))
    embeddings = Embeddings(np.ones((300, 2), np.float32), np.ones((900, 2), np.float32))
    rank_both_ways(embeddings, np.arange(900) // 3, text_of_caption=texts)
    assert len(sizes) >= 300 * 900 * 2 / 2**13
    assert max(sizes) <= 2**13


def test_counting_needs_no_second_block_of_scores():
    block = jax.ShapeDtypeStruct((64, 4096), np.float32)
    pairs = jax.ShapeDtypeStruct((256,), np.int32)
    memory = module._counts.lower(block, [(pairs, pairs)]).compile().memory_analysis()
    assert memory.temp_size_in_bytes < block.size


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("captions_of_text", [2, 8000])
def test_memory_is_bounded_by_the_block_not_by_the_scores(ties, captions_of_text, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_CELLS", 2**14)
    monkeypatch.setattr(module, "PAIRS_PER_BLOCK", 2**13)
    image_of_caption = np.repeat(np.arange(400), 20)
    similarity = GENERATOR.random((400, 8000), np.float32)
    tracemalloc.start()
    try:
        rank_both_ways(similarity, image_of_caption, ties, np.arange(8000) // captions_of_text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < similarity.size / 2  # a second matrix has a byte an element at least
