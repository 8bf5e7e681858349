"""Ranks of the right answers among all scores, on the device, in bounded memory.

A caption is right for an image, and the image for the caption, if the image has a caption of that
text. The official protocol takes every caption for a text of its own; then only an image's own
captions are right for it.
"""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from kamcl_jax import right_items, score_blocks
from kamcl_jax.right_items import RightItems
from kamcl_jax.score_blocks import Array, Matrix, Scores

TIES = ("expected", "argsort")
WAYS = ("i2t", "t2i")

BLOCK_CELLS = 2**25
"""Scores that are ranked at once, 128 MB; two such blocks may be in memory."""

PAIRS_PER_BLOCK = 2**21
"""Right answers that are listed at once; a block with more of them is parted, down to a query."""

Pairs = tuple[np.ndarray, np.ndarray]
Counts = tuple[jax.Array, jax.Array, jax.Array]


def both_ways(
    scores: Scores | Array,
    image_of_caption: np.ndarray,
    ties: str = "expected",
    text_of_caption: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Ranks images for captions and captions for images.

    Args:
      scores: f32[N, M], images by captions, or an object of such; see `score_blocks`.
      image_of_caption: int[M], row of the image that each caption describes; any number an image,
        at least one.
      ties: see `image_to_text_ranks`.
      text_of_caption: see `image_to_text_ranks`.

    Returns:
      `i2t`: f64[N] and `t2i`: f64[M], 1 = first.

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    return both_ways_for_each(scores, image_of_caption, [text_of_caption], ties)[0]


def both_ways_for_each(
    scores: Scores | Array,
    image_of_caption: np.ndarray,
    texts_of_captions: Sequence[np.ndarray | None],
    ties: str = "expected",
) -> list[dict[str, np.ndarray]]:
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
        right_items.both_ways(image_of_caption, num_images, texts) for texts in texts_of_captions
    ]
    i2t = _ranks(scores.rows, num_captions, [ways["i2t"] for ways in right], ties)
    t2i = _ranks(scores.columns, num_images, [ways["t2i"] for ways in right], ties)
    return [dict(zip(WAYS, ranks, strict=True)) for ranks in zip(i2t, t2i, strict=True)]


def image_to_text_ranks(
    scores: Scores | Array,
    image_of_caption: np.ndarray,
    ties: str = "expected",
    text_of_caption: np.ndarray | None = None,
) -> np.ndarray:
    """Ranks each image's best right caption among all captions, 1 = first.

    With `ties="expected"`, captions that score the same stand in random order and the rank is the
    expected one: of m right and t other captions tied at the best right score, the first right one
    has t / (m + 1) others before it on average. If the score of a right caption is NaN, the rank
    is behind everything.

    Args:
      scores: as for `both_ways`.
      image_of_caption: int[M], row of the image that each caption describes; any number an image,
        at least one.
      ties: "argsort" lets tied captions stand as NumPy's sort leaves them, see
        `metrics.retrieval_metrics`.
      text_of_caption: int[M], equal for captions of equal text, as `equal_texts.numbered` returns
        it: captions that repeat one of the image's own are right too. None: its own alone.

    Returns:
      f64[N].

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    scores = score_blocks.of(scores)
    right = right_items.both_ways(image_of_caption, scores.shape[0], text_of_caption)
    return _ranks(scores.rows, scores.shape[1], [right["i2t"]], ties)[0]


def text_to_image_ranks(
    scores: Scores | Array,
    image_of_caption: np.ndarray,
    ties: str = "expected",
    text_of_caption: np.ndarray | None = None,
) -> np.ndarray:
    """Ranks each caption's best right image among all images, 1 = first.

    Args:
      scores: as for `both_ways`.
      image_of_caption: int[M], row of the image that each caption describes.
      ties: as for `image_to_text_ranks`.
      text_of_caption: int[M], equal for captions of equal text: every image with a caption of that
        text is right. None: the image that it describes alone.

    Returns:
      f64[M].

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    scores = score_blocks.of(scores)
    right = right_items.both_ways(image_of_caption, scores.shape[0], text_of_caption)
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
) -> list[np.ndarray]:
    """Ranks queries a block at a time.

    Args:
      block_of: queries -> their scores f32[B, num_items].
      num_items: that each query ranks.
      right: for each reading, of the same Q queries.
      ties: one of `TIES`.

    Returns:
      f64[Q] for each reading.
    """
    num_right = np.sum([items.counts() for items in right], axis=0)
    ranks = [np.empty(len(num_right)) for _ in right]
    argsort = is_argsort(ties)
    pending: tuple[slice, list[Counts]] | None = None

    def finish() -> None:
        if pending is not None:
            queries, counts = pending
            for of_reading, counted in zip(ranks, counts, strict=True):
                of_reading[queries] = _expected_ranks(*counted)

    for queries in _blocks(num_right, num_items):
        pairs = [items.pairs(queries) for items in right]
        scores = block_of(queries)
        if argsort:
            for of_reading, listed in zip(ranks, pairs, strict=True):
                of_reading[queries] = _argsort_ranks(np.asarray(scores), *listed)
            continue
        counts = _counts(scores, [_padded(listed, len(scores)) for listed in pairs])
        # Fetched one block late: the device counts while the host lists the next pairs, and never
        # more than two blocks of scores wait.
        finish()
        pending = queries, counts
    finish()
    return ranks


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
      more), how many score as much, and how many of these are right.
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
    return greater, tied, right_tied


def _expected_ranks(greater: jax.Array, tied: jax.Array, right_tied: jax.Array) -> np.ndarray:
    """Returns f64[B], the expected rank of the best right item over random orders of the tied."""
    right = np.asarray(right_tied, np.float64)
    return 1 + np.asarray(greater) + (np.asarray(tied) - right) / (right + 1)


def _argsort_ranks(scores: np.ndarray, query: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Returns f64[B], the rank of the first right item as the KAMCL release counts it.

    NumPy's default sort, read backwards, decides between equal scores; how it leaves them may
    change with NumPy's version and the processor. A NaN comes first.

    Args:
      scores: f32[B, C].
      query: int[P], ascending.
      item: int[P], right for the query.
    """
    ranks = np.empty(len(scores))
    starts = np.searchsorted(query, np.arange(len(scores) + 1))
    for row, of_query in enumerate(scores):
        # The release sorts doubles, and which of two tied ones comes first depends on the type.
        order = np.argsort(of_query.astype(np.float64))[::-1]
        right = np.zeros(len(of_query), bool)
        right[item[starts[row] : starts[row + 1]]] = True
        ranks[row] = 1 + np.argmax(right[order])
    return ranks
