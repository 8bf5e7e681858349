"""The field's metrics: recall@k both ways, their mean, and median and mean rank."""

from collections.abc import Mapping

import numpy as np

from kamcl_jax import ranking
from kamcl_jax.score_blocks import Array, Scores

RECALL_AT = (1, 5, 10)
RECALLS = tuple(f"{way}_r{k}" for way in ranking.WAYS for k in RECALL_AT)
"""Names of the recalls whose mean is mR."""


def retrieval_metrics(
    scores: Scores | Array,
    image_of_caption: np.ndarray,
    ties: str = "expected",
    text_of_caption: np.ndarray | None = None,
) -> dict[str, float]:
    """Returns the field's metrics of all scores of a split.

    Args:
      scores: f32[N, M], images by captions, or an object of such; see `score_blocks`.
      image_of_caption: int[M].
      ties: "expected" gives tied scores their expected rank over random orders of the tied;
        "argsort" does as the KAMCL release: they stay as NumPy's sort leaves them, and the median
        rank is rounded down.
      text_of_caption: int[M], equal for captions of equal text: what has the query's text is right
        too. None: the official protocol.

    Returns:
      `i2t_r1`, `i2t_r5`, `i2t_r10`, `t2i_r1`, `t2i_r5`, `t2i_r10`: recall@k in percent (share of
      queries whose rank is at most k); `mR`: their mean; `i2t_medr`, `i2t_meanr`, `t2i_medr`,
      `t2i_meanr`: median and mean rank, 1 = first.

    Raises:
      ValueError: `ties` is not one of `ranking.TIES`.
    """
    return of_ranks(ranking.both_ways(scores, image_of_caption, ties, text_of_caption), ties)


def of_ranks(ranks: Mapping[str, np.ndarray], ties: str = "expected") -> dict[str, float]:
    """Returns the metrics of ranks.

    Args:
      ranks: as `ranking.both_ways` returns them.
      ties: how they were ranked.

    Returns:
      As `retrieval_metrics`.

    Raises:
      ValueError: `ties` is not one of `ranking.TIES`.
    """
    metrics = recalls(ranks)
    for way, rank in ranks.items():
        median = np.median(rank)
        metrics[f"{way}_medr"] = float(np.floor(median) if ranking.is_argsort(ties) else median)
        metrics[f"{way}_meanr"] = float(np.mean(rank))
    return metrics


def recalls(ranks: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns `RECALLS` and `mR` in percent.

    Args:
      ranks: of any queries, at least one each way: `i2t`: f64[n], `t2i`: f64[m].
    """
    found = {
        f"{way}_r{k}": 100 * float(np.mean(ranks[way] <= k))
        for way in ranking.WAYS
        for k in RECALL_AT
    }
    return {**found, "mR": float(np.mean(list(found.values())))}


def chance_metrics(image_of_caption: np.ndarray) -> dict[str, float]:
    """Returns the recalls and mR, in percent, that random scores have in expectation.

    With c of M captions right, k random ones miss them all with probability
    C(M - c, k) / C(M, k).
    """
    captions_of_image = np.bincount(image_of_caption)
    num_images, num_captions = captions_of_image.size, image_of_caption.size
    chance = {}
    for k in RECALL_AT:
        misses = np.ones(num_images)
        for drawn in range(min(k, num_captions)):
            left = np.maximum(num_captions - captions_of_image - drawn, 0)
            misses *= left / (num_captions - drawn)
        chance[f"i2t_r{k}"] = 100 * float(np.mean(1 - misses))
        chance[f"t2i_r{k}"] = 100 * min(k / num_images, 1.0)
    chance["mR"] = float(np.mean(list(chance.values())))
    return chance
