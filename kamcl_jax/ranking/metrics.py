"""The field's metrics: recall@k both ways, their mean, and median and mean rank."""

from collections.abc import Mapping

import numpy as np

from kamcl_jax.ranking import ranks as ranking
from kamcl_jax.ranking import relevance
from kamcl_jax.ranking.ranks import Ranks
from kamcl_jax.ranking.relevance import RightItems
from kamcl_jax.ranking.scores import Array, Scores

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
      ties: with "expected" tied scores stand in random order, and every metric is computed from
        what to expect of each query over these orders; "argsort" does as the KAMCL release: they
        stay as NumPy's sort leaves them, and the median rank is rounded down.
      text_of_caption: int[M], equal for captions of equal text: what has the query's text is right
        too. None: the official protocol.

    Returns:
      `i2t_r1`, `i2t_r5`, `i2t_r10`, `t2i_r1`, `t2i_r5`, `t2i_r10`: recall@k in percent (share of
      queries that have a right item among the first k; where scores tie, a query counts with the
      probability of this); `mR`: their mean; `i2t_medr`, `i2t_meanr`, `t2i_medr`, `t2i_meanr`:
      median and mean of the expected ranks, 1 = first.

    Raises:
      ValueError: `ties` is not one of `ranking.TIES`.
    """
    return of_ranks(ranking.both_ways(scores, image_of_caption, ties, text_of_caption), ties)


def of_ranks(ranks: Mapping[str, Ranks], ties: str = "expected") -> dict[str, float]:
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
    for way, of_way in ranks.items():
        rank = of_way.expected()
        median = np.median(rank)
        metrics[f"{way}_medr"] = float(np.floor(median) if ranking.is_argsort(ties) else median)
        metrics[f"{way}_meanr"] = float(np.mean(rank))
    return metrics


def recalls(ranks: Mapping[str, Ranks]) -> dict[str, float]:
    """Returns `RECALLS` and `mR` in percent, expected over random orders of tied scores.

    Args:
      ranks: `i2t` and `t2i`, of any queries, at least one each way.
    """
    found = {
        f"{way}_r{k}": 100 * float(np.mean(ranks[way].hit_probability(k)))
        for way in ranking.WAYS
        for k in RECALL_AT
    }
    return {**found, "mR": float(np.mean(list(found.values())))}


def chance_metrics(
    image_of_caption: np.ndarray, text_of_caption: np.ndarray | None = None
) -> dict[str, float]:
    """Returns the recalls and mR, in percent, that random scores have in expectation.

    Random scores leave the items in random order, as equal scores do: for every query all wrong
    items tie with all right ones. So a model that scores all pairs the same scores exactly this.

    Args:
      image_of_caption: int[M], row of the image that each caption describes.
      text_of_caption: see `retrieval_metrics`.
    """
    num_captions, num_images = len(image_of_caption), int(np.max(image_of_caption)) + 1
    right = relevance.both_ways(image_of_caption, num_images, text_of_caption)
    return recalls(
        {
            "i2t": _random_order(right["i2t"], num_captions),
            "t2i": _random_order(right["t2i"], num_images),
        }
    )


def _random_order(right: RightItems, num_items: int) -> Ranks:
    num_right = right.counts()
    return Ranks(np.zeros_like(num_right), num_items - num_right, num_right)
