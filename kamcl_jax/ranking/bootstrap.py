"""How much the recalls hang on which images happened to be tested."""

from collections.abc import Iterator, Mapping

import numpy as np

from kamcl_jax.ranking import metrics
from kamcl_jax.ranking import ranks as ranking
from kamcl_jax.ranking.ranks import Ranks

RESAMPLES = 1000
PERCENTILES = (2.5, 97.5)
"""Between them lie 95 % of the resamples."""

_BLOCK_CELLS = 2**20


def intervals(
    ranks: Mapping[str, Ranks],
    image_of_caption: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Returns 95 % bootstrap intervals over images.

    A resample draws as many images as there are, with replacement. An image brings its own query
    and those of all of its captions, which belong together; what is searched stays whole, so a
    query's rank does not change. Where scores tie, a query counts with the probability of its hit,
    so the random order of the tied adds no width. The interval lies between percentiles of the
    resamples.

    Args:
      ranks: as `ranking.both_ways` returns them.
      image_of_caption: int[M], row of the image that each caption describes.
      resamples: how many.
      seed: of the draw; equal seeds draw the same images for every model.

    Returns:
      `[low, high]` in percent for each of `metrics.RECALLS` and `mR`.
    """
    return _bounds(_resampled(ranks, image_of_caption, resamples, seed))


def difference_intervals(
    ranks: Mapping[str, Ranks],
    other_ranks: Mapping[str, Ranks],
    image_of_caption: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Returns 95 % paired bootstrap intervals, over images, of how much better one model is.

    Both models are scored on the same resamples: what all models find hard or easy cancels out,
    so that these intervals are narrower than what those of each model alone suggest.

    Args:
      ranks: of the one, as `ranking.both_ways` returns them.
      other_ranks: of the other, of the same queries.
      image_of_caption: as for `intervals`.
      resamples: how many.
      seed: of the draw.

    Returns:
      As `intervals`, of the one's recall less the other's; above 0 where the one is better.
    """
    draw = (image_of_caption, resamples, seed)
    return _bounds(_resampled(ranks, *draw) - _resampled(other_ranks, *draw))


def _resampled(
    ranks: Mapping[str, Ranks], image_of_caption: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """Returns the recalls and mR, in percent, of each resample: f64[resamples, 7]."""
    hits, queries = _sums_of_images(ranks, image_of_caption)
    recalls = np.concatenate(
        [
            100 * (times_drawn @ hits) / (times_drawn @ queries)
            for times_drawn in _draw(len(hits), resamples, seed)
        ]
    )
    return np.column_stack([recalls, recalls.mean(axis=1)])


def _bounds(recalls: np.ndarray) -> dict[str, list[float]]:
    bounds = np.percentile(recalls, PERCENTILES, axis=0).T.tolist()
    return dict(zip((*metrics.RECALLS, "mR"), bounds, strict=True))


def _sums_of_images(
    ranks: Mapping[str, Ranks], image_of_caption: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many queries of each image hit, and how many there are, for each recall.

    Hits are expected numbers, as a query whose scores tie hits with a probability.

    Returns:
      Two f64[N, 6], columns as in `metrics.RECALLS`.
    """
    num_images = len(ranks["i2t"])
    image_of_query = {"i2t": np.arange(num_images), "t2i": image_of_caption}

    def sums(values: np.ndarray, way: str) -> np.ndarray:
        return np.bincount(image_of_query[way], values, minlength=num_images)

    columns = [(way, k) for way in ranking.WAYS for k in metrics.RECALL_AT]
    hits = [sums(ranks[way].hit_probability(k), way) for way, k in columns]
    queries = [sums(np.ones(len(ranks[way])), way) for way, _ in columns]
    return np.stack(hits, axis=1), np.stack(queries, axis=1)


def _draw(num_images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields how often each resample draws each image, f64[block, num_images]."""
    generator = np.random.Generator(np.random.PCG64(seed))
    chances = np.full(num_images, 1 / num_images)
    size = max(1, _BLOCK_CELLS // num_images)
    for start in range(0, resamples, size):
        block = min(size, resamples - start)
        yield generator.multinomial(num_images, chances, size=block).astype(np.float64)
