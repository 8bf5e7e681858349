"""The field's metrics of ranks, how certain they are, and how they differ between scene classes.

Recall@k both ways, their mean mR, median and mean rank; what chance gives; bootstrap intervals over
images; the recalls of each scene class that the names of the image files carry.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from kamcl_jax.ranking.ranks import WAYS, Ranks, rank_both_ways
from kamcl_jax.ranking.relevance import Relevance, relevance_both_ways
from kamcl_jax.ranking.scores import Array, Scores

RECALL_AT = (1, 5, 10)
RECALLS = tuple(f"{way}_r{k}" for way in WAYS for k in RECALL_AT)
"""The names of the recalls whose mean is mR."""

RECALLS_AND_MEAN = (*RECALLS, "mR")

RESAMPLES = 1000

NO_CLASS = "(none)"
"""The row of the images whose names carry no class."""

_BLOCK_CELLS = 2**20
_TRAILING_NUMBER = re.compile(r"[\s_.(-]*\d+\)?$")


def retrieval_metrics(
    scores: Scores | Array,
    image_of_caption: np.ndarray,
    ties: str = "expected",
    text_of_caption: np.ndarray | None = None,
) -> dict[str, float]:
    """Returns `metrics_of_ranks` of all scores of a split, ranked by `rank_both_ways`."""
    ranks = rank_both_ways(scores, image_of_caption, ties, text_of_caption)
    return metrics_of_ranks(ranks, ties)


def metrics_of_ranks(ranks: Mapping[str, Ranks], ties: str = "expected") -> dict[str, float]:
    """Returns the field's metrics of what `rank_both_ways` returns with the same `ties`.

    With "expected" every metric is computed from what to expect of each query over random orders
    of tied items; with "argsort" the median rank is rounded down, as the KAMCL release does.

    Returns:
      `i2t_r1`, `i2t_r5`, `i2t_r10`, `t2i_r1`, `t2i_r5`, `t2i_r10`: recall@k in percent (the share
      of queries that have a relevant item among the first k; where scores tie, a query counts with
      the probability of this); `mR`: their mean; `i2t_medr`, `i2t_meanr`, `t2i_medr`, `t2i_meanr`:
      median and mean of the expected ranks, 1 = first.
    """
    metrics = recalls(ranks)
    for way, of_way in ranks.items():
        rank = of_way.expected()
        median = np.median(rank)
        metrics[f"{way}_medr"] = float(np.floor(median) if ties == "argsort" else median)
        metrics[f"{way}_meanr"] = float(np.mean(rank))
    return metrics


def recalls(ranks: Mapping[str, Ranks]) -> dict[str, float]:
    """Returns `RECALLS` and `mR` in percent of any queries, at least one each way."""
    found = {
        f"{way}_r{k}": 100 * float(np.mean(ranks[way].hit_probability(k)))
        for way in WAYS
        for k in RECALL_AT
    }
    return {**found, "mR": float(np.mean(list(found.values())))}


def chance_metrics(
    image_of_caption: np.ndarray, text_of_caption: np.ndarray | None = None
) -> dict[str, float]:
    """Returns the recalls and mR, in percent, that random scores have in expectation.

    Random scores leave the items in random order, as equal scores do: for every query all
    irrelevant items tie with all relevant ones. So a model that scores all pairs the same scores
    exactly this. The arguments are those of `rank_both_ways`.
    """
    num_captions, num_images = len(image_of_caption), int(np.max(image_of_caption)) + 1
    relevant = relevance_both_ways(image_of_caption, num_images, text_of_caption)
    return recalls(
        {
            "i2t": _random_order(relevant["i2t"], num_captions),
            "t2i": _random_order(relevant["t2i"], num_images),
        }
    )


def _random_order(relevant: Relevance, num_items: int) -> Ranks:
    num_relevant = relevant.counts()
    return Ranks(np.zeros_like(num_relevant), num_items - num_relevant, num_relevant)


def bootstrap_intervals(
    ranks: Mapping[str, Ranks],
    image_of_caption: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Returns 95 % bootstrap intervals: how much recalls hang on which images were tested.

    A resample draws as many images as there are, with replacement. An image brings its own query
    and those of all of its captions, which belong together; what is searched stays whole, so a
    query's rank does not change. Where scores tie, a query counts with the probability of its hit,
    so the random order of the tied adds no width. The interval lies between percentiles of the
    resamples.

    Args:
      ranks: `i2t` and `t2i`, as `rank_both_ways` returns them.
      image_of_caption: int[M], the row of the image that each caption describes.
      resamples: How many resamples are drawn.
      seed: Equal seeds draw the same images for every model.

    Returns:
      `[low, high]` in percent for each of `RECALLS_AND_MEAN`.
    """
    return _bounds(_resampled(ranks, image_of_caption, resamples, seed))


def bootstrap_differences(
    ranks: Sequence[Mapping[str, Ranks]],
    other_ranks: Sequence[Mapping[str, Ranks]],
    image_of_caption: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Returns 95 % paired bootstrap intervals of the recalls of one model less those of another.

    Both models are scored on the same resamples of the same queries, see `bootstrap_intervals`:
    what all models find hard or easy cancels out, so that these intervals are narrower than what
    those of each model alone suggest. They are above 0 where the first model is better.

    A model may be several trainings, as of several seeds: their recalls are averaged.
    """

    def averaged(trainings: Sequence[Mapping[str, Ranks]]) -> np.ndarray:
        each = [_resampled(one, image_of_caption, resamples, seed) for one in trainings]
        return np.mean(each, axis=0)

    return _bounds(averaged(ranks) - averaged(other_ranks))


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
    bounds = np.percentile(recalls, (2.5, 97.5), axis=0).T.tolist()
    return dict(zip(RECALLS_AND_MEAN, bounds, strict=True))


def _sums_of_images(
    ranks: Mapping[str, Ranks], image_of_caption: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the expected hits of each image's queries, and their number, for each recall.

    Both are f64[N, 6], with columns as in `RECALLS`.
    """
    num_images = len(ranks["i2t"])
    image_of_query = {"i2t": np.arange(num_images), "t2i": image_of_caption}

    def sums(values: np.ndarray, way: str) -> np.ndarray:
        return np.bincount(image_of_query[way], values, minlength=num_images)

    columns = [(way, k) for way in WAYS for k in RECALL_AT]
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


def scene_classes(file_names: Iterable[str]) -> list[str | None]:
    """Returns the scene class that each file name carries.

    It is the folder, if the names have at least two different ones (`airport/1.jpg`,
    `beach/1.jpg`); a folder that all images share says nothing of one. Else it is the name
    without its ending and its trailing number: `sparse_residential_3.png` is of
    `sparse_residential`. A folder or a name without a letter carries none (`00012.jpg`).
    """
    paths = [PurePosixPath(name.replace("\\", "/")) for name in file_names]
    folders = [_with_letter(path.parent.name) for path in paths]
    if len({folder for folder in folders if folder}) < 2:
        folders = [None] * len(paths)
    return [
        folder or _with_letter(_TRAILING_NUMBER.sub("", path.stem))
        for folder, path in zip(folders, paths, strict=True)
    ]


def _with_letter(name: str) -> str | None:
    return name if any(character.isalpha() for character in name) else None


def recalls_of_classes(
    file_names: Iterable[str], image_of_caption: np.ndarray, ranks: Mapping[str, Ranks]
) -> list[dict[str, Any]] | None:
    """Returns the recalls of each scene class, each of its queries against the whole gallery.

    Returns:
      A row a class: `class`, `images` and `captions` (how many), the recalls and mR in percent;
      by name, the images without a class last, as `NO_CLASS`. None if the names carry fewer than
      two classes, or fewer than two images a class on average: then they name the images.
    """
    of_image = scene_classes(file_names)
    named = [name for name in of_image if name is not None]
    classes = sorted(set(named))
    if len(classes) < 2 or 2 * len(classes) > len(named):
        return None
    rows = classes if len(named) == len(of_image) else [*classes, NO_CLASS]
    class_of_image = np.array([NO_CLASS if name is None else name for name in of_image])
    return [_row(name, class_of_image == name, image_of_caption, ranks) for name in rows]


def _row(
    name: str, images: np.ndarray, image_of_caption: np.ndarray, ranks: Mapping[str, Ranks]
) -> dict[str, Any]:
    captions = images[image_of_caption]
    return {
        "class": name,
        "images": int(np.count_nonzero(images)),
        "captions": int(np.count_nonzero(captions)),
        **recalls({"i2t": ranks["i2t"][images], "t2i": ranks["t2i"][captions]}),
    }
