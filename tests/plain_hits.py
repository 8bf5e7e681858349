"""How likely a right item is among the first k, by counting draws."""

import math

import numpy as np


def hit_probability(greater: int, tied_wrong: int, tied_right: int, k: int) -> float:
    """One less the share of the draws of k - greater tied items that are all wrong."""
    drawn = min(k - greater, tied_wrong + tied_right)
    if drawn <= 0:
        return 0.0
    return 1 - math.comb(tied_wrong, drawn) / math.comb(tied_wrong + tied_right, drawn)


def of_scores(scores: np.ndarray, right: np.ndarray, k: int) -> list[float]:
    """For each query, from scores [Q, C] and bool[Q, C]."""
    hits = []
    for of_query, mask in zip(scores, right, strict=True):
        best = of_query[mask].max()
        tied = of_query == best
        counts = np.sum(of_query > best), np.sum(tied & ~mask), np.sum(tied & mask)
        hits.append(hit_probability(*map(int, counts), k))
    return hits


def of_ranks(ranks, k: int) -> np.ndarray:
    """f64[Q] of `ranking.Ranks`."""
    counts = zip(ranks.greater, ranks.tied_wrong, ranks.tied_right, strict=True)
    return np.array([hit_probability(*map(int, of_query), k) for of_query in counts])
