"""The k best items against a stable sort of all scores."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from kamcl_jax.ranking.top_k import GROUP, take_block, top_k

GENERATOR = np.random.default_rng(0)


def whole_numbers(count, width=3):
    """Embeddings whose products are exact, and many of which are the same."""
    return GENERATOR.integers(-1, 2, (count, width)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 5, 23, 40])
@pytest.mark.parametrize(("queries_at_once", "items_at_once"), [(256, 2**17), (4, 5), (3, 22)])
@pytest.mark.parametrize("put", [np.asarray, jnp.asarray])
def test_top_k_is_a_stable_sort(k, queries_at_once, items_at_once, put):
    queries, items = whole_numbers(11), whole_numbers(23)
    scores, indices = top_k(
        put(queries), put(items), k, queries_at_once=queries_at_once, items_at_once=items_at_once
    )
    products = queries @ items.T
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(products, order, axis=1))


@pytest.mark.parametrize("k", [1, 5, 9])
@pytest.mark.parametrize("width", [3, 9])
def test_top_k_of_many_items_is_a_stable_sort_too(k, width):
    queries, items = whole_numbers(6, width), whole_numbers(2 * k * GROUP + 131, width)
    items[-1] = 10 * queries[0]
    items[77] = np.nan
    products = np.nan_to_num(queries @ items.T, nan=-np.inf)
    _, indices = top_k(queries, items, k)
    np.testing.assert_array_equal(indices, np.argsort(-products, 1, kind="stable")[:, :k])


@pytest.mark.parametrize("items_at_once", [3, 100])
def test_scores_that_are_not_numbers_come_last_and_zeros_have_no_sign(items_at_once):
    items = np.array([[np.nan], [-0.0], [0.0], [-0.0], [2], [-1]], np.float32)
    _, indices = top_k(np.ones((1, 1)), items, 6, items_at_once=items_at_once)
    assert indices.tolist() == [[4, 1, 2, 3, 5, 0]]


def test_no_more_items_are_read_at_once_than_told(monkeypatch):
    read = []

    def watched(values, block):
        read.append(len(values[block]))
        return take_block(values, block)

    monkeypatch.setattr(sys.modules[top_k.__module__], "take_block", watched)
    top_k(whole_numbers(7), whole_numbers(50), 2, queries_at_once=4, items_at_once=8)
    assert max(read) == 8
    assert sum(read) == 7 + 2 * 50


@pytest.mark.parametrize(("queries", "items"), [(0, 5), (2, 0)])
def test_without_queries_or_items_nothing_is_found(queries, items):
    scores, indices = top_k(whole_numbers(queries), whole_numbers(items), 3)
    assert scores.shape == indices.shape == (queries, min(3, items))
