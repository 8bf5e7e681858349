"""How well the predicted concepts of images or captions are known: mean average precision.

For each concept the rows are ranked by the probability that is predicted for it, and the average
precision says how far ahead the rows stand that have the concept. It looks at the order alone, so
that a badly calibrated probability costs nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kamcl_jax.ranking.scores import Array

_BLOCK_CELLS = 2**20


def concept_metrics(
    images: Array, captions: Array, labels: np.ndarray, image_of_caption: np.ndarray
) -> dict[str, float]:
    """Returns the mean average precision of the concepts of a split, and what chance gives.

    A caption is scored against the concepts of its image, all of them, whether or not it names
    them: that is what the concept alignment trains it for.

    Args:
      images: f32[N, C], how probable each concept is in each image.
      captions: f32[M, C], the same for each caption.
      labels: bool[N, C], the concepts that each image has.
      image_of_caption: int[M], the row of the image that each caption describes.

    Returns:
      `concept_map` and `concept_map_text`: the mean of `average_precision` over the concepts that
      can be scored, of images and of captions, in percent; `concept_map_chance` and
      `concept_map_text_chance`: the mean of the shares of images and of captions that have such a
      concept, in percent, which is what a prediction that is the same for all of them scores;
      `concepts_scored`: how many concepts that is. Where it is none, the result is empty.
    """
    sides = {
        "concept_map": (images, labels),
        "concept_map_text": (captions, labels[image_of_caption]),
    }
    metrics: dict[str, float] = {}
    for name, (probabilities, of_side) in sides.items():
        precision = average_precision(probabilities, of_side)
        scored = ~np.isnan(precision)
        if not scored.any():
            return {}
        metrics[name] = float(np.mean(precision[scored]))
        metrics[f"{name}_chance"] = float(np.mean(base_rate(of_side)[scored]))
        metrics["concepts_scored"] = int(np.count_nonzero(scored))
    return metrics


def known_concepts(
    words: Sequence[str], probabilities: Array, labels: np.ndarray
) -> list[dict[str, Any]]:
    """Returns how well each concept is known in the images of a split, the best known first.

    Args:
      words: The concepts; further columns of the arrays stand for none.
      probabilities: f32[N, C].
      labels: bool[N, C].

    Returns:
      A row for each concept that can be scored: `concept`, `images` (how many have it),
      `average_precision` and `base_rate`, both in percent.
    """
    precision, rates = average_precision(probabilities, labels), base_rate(labels)
    counts = np.count_nonzero(labels, axis=0)
    return [
        {
            "concept": words[column],
            "images": int(counts[column]),
            "average_precision": float(precision[column]),
            "base_rate": float(rates[column]),
        }
        for column in np.argsort(-precision, kind="stable").tolist()
        if not np.isnan(precision[column])
    ]


def base_rate(labels: np.ndarray) -> np.ndarray:
    """Returns f64[C]: the share of the rows of bool[R, C] that have each concept, in percent."""
    return 100 * np.asarray(np.mean(labels, axis=0, dtype=np.float64))


def average_precision(probabilities: Array, labels: np.ndarray) -> np.ndarray:
    """Returns the average precision of each concept over the rows, in percent.

    It is the sum of `(recall_n - recall_{n-1}) * precision_n` over the distinct probabilities as
    thresholds, highest first. Rows of one probability thus come in together, and their order does
    not matter.

    Args:
      probabilities: f32[R, C].
      labels: bool[R, C].

    Returns:
      f64[C]; NaN for a concept that all rows have, or none: there is nothing to tell apart.
    """
    probabilities = np.asarray(probabilities)
    num_rows, num_concepts = labels.shape
    # A concept's rows lie side by side in memory, and few concepts at once bound the memory.
    size = max(1, _BLOCK_CELLS // max(1, num_rows))
    blocks = [
        _of_concepts(
            np.ascontiguousarray(probabilities[:, start : start + size].T),
            np.ascontiguousarray(labels[:, start : start + size].T),
        )
        for start in range(0, num_concepts, size)
    ]
    return 100 * np.concatenate([np.zeros(0), *blocks])


def _of_concepts(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns f64[C] in [0, 1] of [C, R], a concept a line."""
    order = np.argsort(-probabilities, axis=1)
    ranked = np.take_along_axis(probabilities, order, axis=1)
    found = np.cumsum(np.take_along_axis(labels, order, axis=1), axis=1, dtype=np.int32)
    last_of_ties = np.ones(ranked.shape, bool)
    last_of_ties[:, :-1] = ranked[:, 1:] != ranked[:, :-1]
    # What was found up to the threshold before: the count never falls, so its maximum is the last.
    up_to_threshold = np.maximum.accumulate(np.where(last_of_ties, found, 0), axis=1)
    gained = np.diff(up_to_threshold, axis=1, prepend=0)
    precision = found / np.arange(1, ranked.shape[1] + 1)
    positives = found[:, -1:].sum(axis=1)
    told_apart = (positives > 0) & (positives < ranked.shape[1])
    sums = np.sum(gained * precision, axis=1)  # nothing is gained but at the last of ties
    return np.divide(sums, positives, out=np.full(len(positives), np.nan), where=told_apart)
