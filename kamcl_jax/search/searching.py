"""The images of an index that are nearest to queries."""

from typing import NamedTuple

import numpy as np

from kamcl_jax.ranking.top_k import top_k
from kamcl_jax.search import faiss_index
from kamcl_jax.search.index import ImageIndex


class Found(NamedTuple):
    """An image that a query has found.

    Attributes:
      row: of the index.
      file: its path below the index's `images_root`.
      score: cosine of the two embeddings.
    """

    row: int
    file: str
    score: float


def search(
    index: ImageIndex, queries: np.ndarray, k: int, *, approximate: bool = False
) -> list[list[Found]]:
    """Finds the nearest images.

    Args:
      index: to search.
      queries: f32[Q, E], unit vectors.
      k: how many images a query; all of them if the index has fewer.
      approximate: through FAISS, see `faiss_index`: sooner, but some are missed.

    Returns:
      For each query its images, the nearest first.

    Raises:
      DataError: FAISS is not installed.
    """
    find = faiss_index.top_k if approximate else _exact
    scores, rows = find(index, queries, k)
    return [
        [
            Found(row, index.files[row], score)
            for row, score in zip(some_rows, some_scores, strict=True)
            if row >= 0
        ]
        for some_rows, some_scores in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def _exact(index: ImageIndex, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    return top_k(queries, index.embeddings, k)
