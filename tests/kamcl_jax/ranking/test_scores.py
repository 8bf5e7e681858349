"""Blocks of scores, of a matrix and of embeddings, on the host and on a device."""

import jax.numpy as jnp
import numpy as np
import pytest

from kamcl_jax.ranking.scores import Embeddings, Matrix, _slice, as_scores, inner_products

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(-3, 4, (7, 5)).astype(np.float32)
CAPTIONS = GENERATOR.integers(-3, 4, (11, 5)).astype(np.float32)
PRODUCTS = IMAGES @ CAPTIONS.T


@pytest.mark.parametrize(
    "scores",
    [
        PRODUCTS,
        PRODUCTS.astype(np.float64),
        jnp.asarray(PRODUCTS),
        Matrix(PRODUCTS),
        Embeddings(IMAGES, CAPTIONS),
        Embeddings(jnp.asarray(IMAGES), jnp.asarray(CAPTIONS)),
    ],
)
def test_blocks_are_parts_of_the_matrix(scores):
    scores = as_scores(scores)
    assert scores.shape == (7, 11)
    for start, stop in ((0, 7), (0, 2), (3, 5), (6, 7)):
        rows, columns = (of(slice(start, stop)) for of in (scores.rows, scores.columns))
        assert rows.dtype == columns.dtype == np.float32
        np.testing.assert_array_equal(rows, PRODUCTS[start:stop])
        np.testing.assert_array_equal(columns, PRODUCTS[:, start:stop].T)


def test_blocks_of_one_size_are_compiled_once():
    scores = as_scores(Embeddings(GENERATOR.random((23, 3)), GENERATOR.random((29, 3))))
    scores.rows(slice(0, 4))
    before = inner_products._cache_size(), _slice._cache_size()
    for start in range(1, 19):
        scores.rows(slice(start, start + 4))
    assert (inner_products._cache_size(), _slice._cache_size()) == before
