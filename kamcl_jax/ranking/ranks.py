"""Ranks of the right answers among all scores, on the device, in bounded memory.

A caption is right for an image, and the image for the caption, if the image has a caption of that
text. The official protocol takes every caption for a text of its own; then only an image's own
captions are right for it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from kamcl_jax.ranking import relevance
from kamcl_jax.ranking import scores as score_blocks
from kamcl_jax.ranking.relevance import RightItems
from kamcl_jax.ranking.scores import Array, Matrix, Scores

TIES = ("expected", "argsort")
WAYS = ("i2t", "t2i")

BLOCK_CELLS = 2**25
"""Scores that are ranked at once, 128 MB; two such blocks may be in memory."""

PAIRS_PER_BLOCK = 2**21
"""Right answers that are listed at once; a block with more of them is parted, down to a query."""

Pairs = tuple[np.ndarray, np.ndarray]
Counts = tuple[jax.Array, jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Ranks:
    """The ranks of Q queries: where the best right item of each stands among all items.

    Items that score the same stand in random order. Where the best right item ties with wrong ones,
    its rank is therefore not one number but a distribution, which these three counts determine.
    Do not compare a rank with k: a recall is the mean of `hit_probability(k)`.
    The share of the queries whose `expected()` rank is at most k is something else: one right item
    that ties with one wrong item has the expected rank 1.5, yet it is the first in half of all
    orders.

    Attributes:
      greater: i32[Q], how many items score more than the best right one.
      tied_wrong: i32[Q], how many wrong items score the same as it.
      tied_right: i32[Q], how many right items score the same, itself included. It is 0 where the
        score of a right item is NaN: then no right item is ever found.
    """

    greater: np.ndarray
    tied_wrong: np.ndarray
    tied_right: np.ndarray

    @classmethod
    def untied(cls, ranks: np.ndarray) -> "Ranks":
        """Returns ranks that no tie leaves open, from int[Q], 1 = first."""
        greater = np.asarray(ranks, np.int32) - 1
        return cls(greater, np.zeros_like(greater), np.ones_like(greater))

    def __len__(self) -> int:
        return len(self.greater)

    def __getitem__(self, queries: slice | np.ndarray) -> "Ranks":
        """Returns the ranks of some queries: a slice, a mask bool[Q], or rows int[R]."""
        return Ranks(self.greater[queries], self.tied_wrong[queries], self.tied_right[queries])

    def expected(self) -> np.ndarray:
        """Returns f64[Q], the expected rank of the first right item, 1 = first.

        On average o / (m + 1) of o wrong items stand before the first of m right ones.
        """
        return 1 + self.greater + self.tied_wrong / (self.tied_right + 1)

    def hit_probability(self, k: int) -> np.ndarray:
        """Returns f64[Q], how likely a right item is among the first k.

        Of g greater, o tied wrong and m tied right items it is
        1 - C(o, k - g) / C(o + m, k - g), and 0 for k <= g. Here the places after the greater items
        are filled one after another, which stays exact for any number of tied items.
        """
        hit = np.zeros(len(self))
        for place in range(k):
            left = self.greater + self.tied_wrong + self.tied_right - place
            # Once all wrong ones are placed, only right ones are left and the next is a hit.
            chance = self.tied_right / np.maximum(left, np.maximum(self.tied_right, 1))
            hit += np.where(self.greater <= place, (1 - hit) * chance, 0)
        return hit


def both_ways(
    scores: Scores | Array,
    image_of_caption: np.ndarray,
    ties: str = "expected",
    text_of_caption: np.ndarray | None = None,
) -> dict[str, Ranks]:
    """Ranks images for captions and captions for images.

    Args:
      scores: f32[N, M], images by captions, or an object of such; see `score_blocks`.
      image_of_caption: int[M], row of the image that each caption describes; any number an image,
        at least one.
      ties: see `image_to_text_ranks`.
      text_of_caption: see `image_to_text_ranks`.

    Returns:
      `i2t`, of the N images, and `t2i`, of the M captions.

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    return both_ways_for_each(scores, image_of_caption, [text_of_caption], ties)[0]


def both_ways_for_each(
    scores: Scores | Array,
    image_of_caption: np.ndarray,
    texts_of_captions: Sequence[np.ndarray | None],
    ties: str = "expected",
) -> list[dict[str, Ranks]]:
    """Ranks as `both_ways` for several readings of what is right; each score is computed once.

    Args:
      scores: as for `both_ways`.
      image_of_caption: as for `both_ways`.
      texts_of_captions: a `text_of_caption` for each reading, see `image_to_text_ranks`.
      ties: see `image_to_text_ranks`.

    Returns:
      What `both_ways` returns, for each reading.

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    scores = score_blocks.of(scores)
    num_images, num_captions = scores.shape
    if num_images * num_captions <= BLOCK_CELLS:
        scores = Matrix(scores.rows(slice(0, num_images)))  # once for both ways
    right = [
        relevance.both_ways(image_of_caption, num_images, texts) for texts in texts_of_captions
    ]
    i2t = _ranks(scores.rows, num_captions, [ways["i2t"] for ways in right], ties)
    t2i = _ranks(scores.columns, num_images, [ways["t2i"] for ways in right], ties)
    return [dict(zip(WAYS, ranks, strict=True)) for ranks in zip(i2t, t2i, strict=True)]


def image_to_text_ranks(
    scores: Scores | Array,
    image_of_caption: np.ndarray,
    ties: str = "expected",
    text_of_caption: np.ndarray | None = None,
) -> Ranks:
    """Ranks each image's best right caption among all captions.

    With `ties="expected"`, captions that score the same stand in random order, and whatever is
    computed of the ranks is an expectation over these orders. If the score of a right caption is
    NaN, all captions count as greater and none as right.

    Args:
      scores: as for `both_ways`.
      image_of_caption: int[M], row of the image that each caption describes; any number an image,
        at least one.
      ties: "argsort" lets tied captions stand as NumPy's sort leaves them, so that the ranks have
        no ties; see `metrics.retrieval_metrics`.
      text_of_caption: int[M], equal for captions of equal text, as `equal_text_ids` returns
        it: captions that repeat one of the image's own are right too. None: its own alone.

    Returns:
      Of the N images.

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    scores = score_blocks.of(scores)
    right = relevance.both_ways(image_of_caption, scores.shape[0], text_of_caption)
    return _ranks(scores.rows, scores.shape[1], [right["i2t"]], ties)[0]


def text_to_image_ranks(
    scores: Scores | Array,
    image_of_caption: np.ndarray,
    ties: str = "expected",
    text_of_caption: np.ndarray | None = None,
) -> Ranks:
    """Ranks each caption's best right image among all images.

    Args:
      scores: as for `both_ways`.
      image_of_caption: int[M], row of the image that each caption describes.
      ties: as for `image_to_text_ranks`.
      text_of_caption: int[M], equal for captions of equal text: every image with a caption of that
        text is right. None: the image that it describes alone.

    Returns:
      Of the M captions.

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    scores = score_blocks.of(scores)
    right = relevance.both_ways(image_of_caption, scores.shape[0], text_of_caption)
    return _ranks(scores.columns, scores.shape[0], [right["t2i"]], ties)[0]


def is_argsort(ties: str) -> bool:
    """Returns whether ties stand as NumPy's sort leaves them.

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    if ties not in TIES:
        raise ValueError(f"ties is {ties!r}; it must be one of {', '.join(map(repr, TIES))}")
    return ties == "argsort"


def _ranks(
    block_of: Callable[[slice], jax.Array],
    num_items: int,
    right: Sequence[RightItems],
    ties: str,
) -> list[Ranks]:
    """Ranks queries a block at a time.

    Args:
      block_of: queries -> their scores f32[B, num_items].
      num_items: that each query ranks.
      right: for each reading, of the same Q queries.
      ties: one of `TIES`.

    Returns:
      Of the Q queries, for each reading.
    """
    rank = _argsort_ranks if is_argsort(ties) else _tied_ranks
    return rank(block_of, num_items, right)


def _tied_ranks(
    block_of: Callable[[slice], jax.Array], num_items: int, right: Sequence[RightItems]
) -> list[Ranks]:
    """Ranks queries where ties are left open, see `_ranks`."""
    num_right = np.sum([items.counts() for items in right], axis=0)
    found = [np.empty((3, len(num_right)), np.int32) for _ in right]
    pending: tuple[slice, list[Counts]] | None = None

    def finish() -> None:
        if pending is not None:
            queries, counts = pending
            for of_reading, counted in zip(found, counts, strict=True):
                of_reading[:, queries] = np.stack(counted)

    for queries in _blocks(num_right, num_items):
        pairs = [items.pairs(queries) for items in right]
        scores = block_of(queries)
        counts = _counts(scores, [_padded(listed, len(scores)) for listed in pairs])
        # Fetched one block late: the device counts while the host lists the next pairs, and never
        # more than two blocks of scores wait.
        finish()
        pending = queries, counts
    finish()
    return [Ranks(*of_reading) for of_reading in found]


def _argsort_ranks(
    block_of: Callable[[slice], jax.Array], num_items: int, right: Sequence[RightItems]
) -> list[Ranks]:
    """Ranks queries as the KAMCL release does, see `_ranks`."""
    num_right = np.sum([items.counts() for items in right], axis=0)
    ranks = [np.empty(len(num_right), np.int32) for _ in right]
    for queries in _blocks(num_right, num_items):
        scores = np.asarray(block_of(queries))
        for of_reading, items in zip(ranks, right, strict=True):
            of_reading[queries] = _first_right(scores, *items.pairs(queries))
    return list(map(Ranks.untied, ranks))


def _blocks(num_right: np.ndarray, num_items: int) -> Iterator[slice]:
    """Yields blocks of queries of as few sizes as can be; they may overlap.

    Args:
      num_right: i64[Q], of each query, in all readings.
      num_items: that each query ranks.
    """
    num_queries = len(num_right)
    most = max(1, min(num_queries, BLOCK_CELLS // num_items))
    size = -(-num_queries // -(-num_queries // most))
    before = np.concatenate([[0], np.cumsum(num_right)])

    def parted(start: int, stop: int) -> Iterator[slice]:
        if stop - start == 1 or before[stop] - before[start] <= PAIRS_PER_BLOCK:
            yield slice(start, stop)
            return
        half = -(-(stop - start) // 2)
        yield from parted(start, start + half)
        yield from parted(stop - half, stop)

    for start in range(0, num_queries, size):
        start = min(start, num_queries - size)  # the last block is as large as the others
        yield from parted(start, start + size)


def _padded(pairs: Pairs, num_queries: int) -> Pairs:
    """Pads pairs of query and item to a power of two, so that few sizes are compiled."""
    missing = (1 << (len(pairs[0]) - 1).bit_length()) - len(pairs[0])
    query, item = (array.astype(np.int32) for array in pairs)
    # There is no query `num_queries`: reads beyond the scores give -inf, writes are dropped.
    return np.pad(query, (0, missing), constant_values=num_queries), np.pad(item, (0, missing))


@jax.jit
def _counts(scores: jax.Array, pairs: list[Pairs]) -> list[Counts]:
    """Counts what scores more than, or as much as, each query's best right item.

    Args:
      scores: f32[B, C].
      pairs: for each reading, query and item, i32[P] each, of all that is right; a query of B
        counts for nothing.

    Returns:
      For each reading i32[B] each: how many items score more (a NaN on either side counts as
      more), and how many wrong and how many right ones score as much.
    """
    return [_count(scores, *listed) for listed in pairs]


def _count(scores: jax.Array, query: Array, item: Array) -> Counts:
    right = scores.at[query, item].get(mode="fill", fill_value=-jnp.inf)
    best = jnp.full(len(scores), -jnp.inf).at[query].max(right, mode="drop")
    found = best.at[query].get(mode="fill", fill_value=jnp.nan)
    right_tied = jnp.zeros(len(scores), jnp.int32).at[query].add(right == found, mode="drop")
    # One reduction of two values: XLA makes one vectorised pass of it on a CPU, but for two
    # separate ones it takes twenty times as long.
    greater, tied = jax.lax.reduce(
        (
            (~(scores <= best[:, None])).astype(jnp.int32),  # NaN ranks behind everything
            (scores == best[:, None]).astype(jnp.int32),
        ),
        (jnp.int32(0), jnp.int32(0)),
        lambda one, other: (one[0] + other[0], one[1] + other[1]),
        (1,),
    )
    return greater, tied - right_tied, right_tied


def _first_right(scores: np.ndarray, query: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Returns i32[B], the rank of the first right item as the KAMCL release counts it.

    NumPy's default sort, read backwards, decides between equal scores; how it leaves them may
    change with NumPy's version and the processor. A NaN comes first.

    Args:
      scores: f32[B, C].
      query: int[P], ascending.
      item: int[P], right for the query.
    """
    ranks = np.empty(len(scores), np.int32)
    starts = np.searchsorted(query, np.arange(len(scores) + 1))
    for row, of_query in enumerate(scores):
        # The release sorts doubles, and which of two tied ones comes first depends on the type.
        order = np.argsort(of_query.astype(np.float64))[::-1]
        right = np.zeros(len(of_query), bool)
        right[item[starts[row] : starts[row + 1]]] = True
        ranks[row] = 1 + np.argmax(right[order])
    return ranks
