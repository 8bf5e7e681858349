"""How well the predicted concepts of images or captions are known: mean average precision.

For each concept the rows are ranked by the probability that is predicted for it, and the average
precision says how far ahead the rows stand that have the concept. It looks at the order alone, so
that a badly calibrated probability costs nothing.
"""

import numpy as np

_BLOCK_CELLS = 2**20


def concept_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the mean average precision of the concepts, and what chance gives.

    Args:
      probabilities: f32[R, C], higher = more probable.
      labels: bool[R, C], whether the row has the concept.

    Returns:
      `concept_map`: the mean of `average_precision` over the concepts that can be scored, in
      percent; `concept_map_chance`: the mean share of rows that have such a concept, in percent,
      which is what a prediction that is the same for every row scores; `concepts_scored`: how many
      concepts that is. Where it is none, the result is empty.
    """
    precision = average_precision(probabilities, labels)
    scored = ~np.isnan(precision)
    if not scored.any():
        return {}
    return {
        "concept_map": float(np.mean(precision[scored])),
        "concept_map_chance": float(np.mean(base_rate(labels)[scored])),
        "concepts_scored": int(np.count_nonzero(scored)),
    }


def base_rate(labels: np.ndarray) -> np.ndarray:
    """Returns f64[C]: the share of the rows of bool[R, C] that have each concept, in percent."""
    return 100 * np.mean(labels, axis=0, dtype=np.float64)


def average_precision(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
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
