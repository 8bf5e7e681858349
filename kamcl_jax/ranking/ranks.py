"""Ranks of the relevant items among all scores, on the device, in bounded memory.

What is relevant to a query is defined in `relevance`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from kamcl_jax.ranking.relevance import Relevance, relevance_both_ways
from kamcl_jax.ranking.scores import Array, Matrix, Scores, as_scores

TIES = ("expected", "argsort")
WAYS = ("i2t", "t2i")

BLOCK_CELLS = 2**25
"""The scores that are ranked at once, 128 MB; two such blocks may be in memory."""

PAIRS_PER_BLOCK = 2**21
"""The relevant items that are listed at once; a block with more is halved, down to one query."""

Pairs = tuple[np.ndarray, np.ndarray]
Counts = tuple[jax.Array, jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Ranks:
    """The ranks of Q queries: where the best relevant item of each stands among all items.

    Items that score the same stand in random order. Where the best relevant item ties with others
    that are irrelevant, its rank is therefore not one number but a distribution, which these three
    counts determine. Do not compare a rank with k: a recall is the mean of `hit_probability(k)`.
    The share of the queries whose `expected()` rank is at most k is something else: one relevant
    item that ties with one irrelevant item has the expected rank 1.5, yet it is the first in half
    of all orders.

    Attributes:
      greater: i32[Q], how many items score more than the best relevant one.
      tied_irrelevant: i32[Q], how many irrelevant items score the same as it.
      tied_relevant: i32[Q], how many relevant items score the same, itself included. It is 0 where
        the score of a relevant item is NaN: then no relevant item is ever found.
    """

    greater: np.ndarray
    tied_irrelevant: np.ndarray
    tied_relevant: np.ndarray

    @classmethod
    def untied(cls, ranks: np.ndarray) -> "Ranks":
        """Returns ranks that no tie leaves open, from int[Q], 1 = first."""
        greater = np.asarray(ranks, np.int32) - 1
        return cls(greater, np.zeros_like(greater), np.ones_like(greater))

    def __len__(self) -> int:
        return len(self.greater)

    def __getitem__(self, queries: slice | np.ndarray) -> "Ranks":
        """Returns the ranks of some queries: a slice, a mask bool[Q], or rows int[R]."""
        return Ranks(
            self.greater[queries], self.tied_irrelevant[queries], self.tied_relevant[queries]
        )

    def expected(self) -> np.ndarray:
        """Returns f64[Q], the expected rank of the first relevant item, 1 = first.

        On average o / (m + 1) of o irrelevant items stand before the first of m relevant ones.
        """
        return 1 + self.greater + self.tied_irrelevant / (self.tied_relevant + 1)

    def hit_probability(self, k: int) -> np.ndarray:
        """Returns f64[Q], how likely a relevant item is among the first k.

        Of g greater, o tied irrelevant and m tied relevant items it is
        1 - C(o, k - g) / C(o + m, k - g), and 0 for k <= g. Here the places after the greater items
        are filled one after another, which stays exact for any number of tied items.
        """
        hit = np.zeros(len(self))
        for place in range(k):
            left = self.greater + self.tied_irrelevant + self.tied_relevant - place
            # Once all irrelevant ones are placed, only relevant ones are left: the next is a hit.
            chance = self.tied_relevant / np.maximum(left, np.maximum(self.tied_relevant, 1))
            hit += np.where(self.greater <= place, (1 - hit) * chance, 0)
        return hit


def rank_both_ways(
    scores: Scores | Array,
    image_of_caption: np.ndarray,
    ties: str = "expected",
    text_of_caption: np.ndarray | None = None,
) -> dict[str, Ranks]:
    """Ranks captions for images and images for captions.

    With `ties="expected"`, items that score the same stand in random order, and whatever is
    computed of the ranks is an expectation over these orders. With "argsort" they stand as NumPy's
    sort leaves them, so that the ranks have no ties: the KAMCL release does so. If the score of a
    relevant item is NaN, all items count as greater and none as relevant.

    Args:
      scores: f32[N, M], images by captions, or an object such as `Embeddings`.
      image_of_caption: int[M], the row of the image that each caption describes; each image has at
        least one caption.
      ties: One of `TIES`.
      text_of_caption: int[M], equal for captions of equal text: every image with a caption of that
        text is relevant. None: the image that it describes alone. See `relevance`.

    Returns:
      `i2t`, the ranks of the N images, and `t2i`, those of the M captions.
    """
    return rank_with_texts(scores, image_of_caption, [text_of_caption], ties)[0]


def rank_with_texts(
    scores: Scores | Array,
    image_of_caption: np.ndarray,
    texts_of_captions: Sequence[np.ndarray | None],
    ties: str = "expected",
) -> list[dict[str, Ranks]]:
    """Does `rank_both_ways` for each of several `text_of_caption`; a score is computed once."""
    scores = as_scores(scores)
    num_images, num_captions = scores.shape
    if num_images * num_captions <= BLOCK_CELLS:
        scores = Matrix(scores.rows(slice(0, num_images)))  # once for both ways
    relevant = [relevance_both_ways(image_of_caption, num_images, of) for of in texts_of_captions]
    rank = _rank_as_sorted if ties == "argsort" else _rank_with_ties
    i2t = rank(scores.rows, num_captions, [both["i2t"] for both in relevant])
    t2i = rank(scores.columns, num_images, [both["t2i"] for both in relevant])
    return [dict(zip(WAYS, ranks, strict=True)) for ranks in zip(i2t, t2i, strict=True)]


def _rank_with_ties(
    scores_of: Callable[[slice], jax.Array], num_items: int, relevant: Sequence[Relevance]
) -> list[Ranks]:
    """Ranks the same queries for each `Relevance`; `scores_of` a block is f32[B, num_items]."""
    num_relevant = np.sum([items.counts() for items in relevant], axis=0)
    found = [np.empty((3, len(num_relevant)), np.int32) for _ in relevant]
    pending: tuple[slice, list[Counts]] | None = None

    def finish() -> None:
        if pending is not None:
            queries, counts = pending
            for ranks, counted in zip(found, counts, strict=True):
                ranks[:, queries] = np.stack(counted)

    for queries in _blocks(num_relevant, num_items):
        pairs = [items.pairs(queries) for items in relevant]
        scores = scores_of(queries)
        counts = _counts(scores, [_padded(listed, len(scores)) for listed in pairs])
        # Fetched one block late: the device counts while the host lists the next pairs, and never
        # more than two blocks of scores wait.
        finish()
        pending = queries, counts
    finish()
    return [Ranks(*ranks) for ranks in found]


def _rank_as_sorted(
    scores_of: Callable[[slice], jax.Array], num_items: int, relevant: Sequence[Relevance]
) -> list[Ranks]:
    num_relevant = np.sum([items.counts() for items in relevant], axis=0)
    found = [np.empty(len(num_relevant), np.int32) for _ in relevant]
    for queries in _blocks(num_relevant, num_items):
        scores = np.asarray(scores_of(queries))
        for ranks, items in zip(found, relevant, strict=True):
            ranks[queries] = _first_relevant(scores, *items.pairs(queries))
    return list(map(Ranks.untied, found))


def _blocks(num_relevant: np.ndarray, num_items: int) -> Iterator[slice]:
    """Yields blocks of queries of as few sizes as can be, each compiled once; they may overlap.

    Args:
      num_relevant: i64[Q], the relevant items of each query that a block lists.
      num_items: The number of items that each query ranks.
    """
    num_queries = len(num_relevant)
    most = max(1, min(num_queries, BLOCK_CELLS // num_items))
    size = -(-num_queries // -(-num_queries // most))
    before = np.concatenate([[0], np.cumsum(num_relevant)])

    def halved(start: int, stop: int) -> Iterator[slice]:
        if stop - start == 1 or before[stop] - before[start] <= PAIRS_PER_BLOCK:
            yield slice(start, stop)
            return
        half = -(-(stop - start) // 2)
        yield from halved(start, start + half)
        yield from halved(stop - half, stop)

    for start in range(0, num_queries, size):
        start = min(start, num_queries - size)  # the last block is as large as the others
        yield from halved(start, start + size)


def _padded(pairs: Pairs, num_queries: int) -> Pairs:
    """Pads pairs of query and item to a power of two, so that few sizes are compiled."""
    missing = (1 << (len(pairs[0]) - 1).bit_length()) - len(pairs[0])
    query, item = (array.astype(np.int32) for array in pairs)
    # There is no query `num_queries`: reads beyond the scores give -inf, writes are dropped.
    return np.pad(query, (0, missing), constant_values=num_queries), np.pad(item, (0, missing))


@jax.jit
def _counts(scores: jax.Array, pairs: list[Pairs]) -> list[Counts]:
    """Counts what scores more than, or as much as, each query's best relevant item.

    Args:
      scores: f32[B, C].
      pairs: For each `Relevance`, the query and the item, i32[P] each, of all that is relevant; a
        query of B counts for nothing.

    Returns:
      For each `Relevance` three i32[B]: how many items score more (a NaN on either side counts as
      more), and how many irrelevant and how many relevant ones score as much.
    """
    return [_count(scores, *listed) for listed in pairs]


def _count(scores: jax.Array, query: Array, item: Array) -> Counts:
    relevant = scores.at[query, item].get(mode="fill", fill_value=-jnp.inf)
    best = jnp.full(len(scores), -jnp.inf).at[query].max(relevant, mode="drop")
    found = best.at[query].get(mode="fill", fill_value=jnp.nan)
    tied_relevant = jnp.zeros(len(scores), jnp.int32).at[query].add(relevant == found, mode="drop")
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
    return greater, tied - tied_relevant, tied_relevant


def _first_relevant(scores: np.ndarray, query: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Returns i32[B], the rank of the first relevant item as the KAMCL release counts it.

    NumPy's default sort, read backwards, decides between equal scores; how it leaves them may
    change with NumPy's version and the processor. A NaN comes first.

    Args:
      scores: f32[B, C].
      query: int[P], ascending.
      item: int[P], an item that is relevant to the query.
    """
    ranks = np.empty(len(scores), np.int32)
    starts = np.searchsorted(query, np.arange(len(scores) + 1))
    for row, of_query in enumerate(scores):
        # The release sorts doubles, and which of two tied ones comes first depends on the type.
        order = np.argsort(of_query.astype(np.float64))[::-1]
        relevant = np.zeros(len(of_query), bool)
        relevant[item[starts[row] : starts[row + 1]]] = True
        ranks[row] = 1 + np.argmax(relevant[order])
    return ranks
