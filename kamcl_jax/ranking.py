"""Ranks of the right answers in a score matrix, in plain NumPy.

A caption is right for an image, and the image for the caption, if the image has a caption of that
text. The official protocol takes every caption for a text of its own; then only an image's own
captions are right for it.
"""

from collections.abc import Callable

import numpy as np

TIES = ("expected", "argsort")
WAYS = ("i2t", "t2i")

BLOCK_CELLS = 2**21
"""Scores that are ranked at once: what bounds the memory beside the score matrix."""

Block = tuple[np.ndarray, np.ndarray]


def both_ways(
    similarity: np.ndarray,
    image_of_caption: np.ndarray,
    ties: str = "expected",
    text_of_caption: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Ranks images for captions and captions for images.

    Args:
      similarity: f32[N, M], images by captions.
      image_of_caption: int[M], row of the image that each caption describes; any number an image,
        at least one.
      ties: see `image_to_text_ranks`.
      text_of_caption: see `image_to_text_ranks`.

    Returns:
      `i2t`: f64[N] and `t2i`: f64[M], 1 = first.

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    return {
        "i2t": image_to_text_ranks(similarity, image_of_caption, ties, text_of_caption),
        "t2i": text_to_image_ranks(similarity, image_of_caption, ties, text_of_caption),
    }


def image_to_text_ranks(
    similarity: np.ndarray,
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
      similarity: f32[N, M].
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
    texts, num_texts = _numbers(image_of_caption, text_of_caption)
    num_images, num_captions = similarity.shape

    def block(images: slice) -> Block:
        rows = np.arange(images.start, images.stop)
        has_text = _incidence(rows, image_of_caption, texts, num_texts)
        return similarity[images], has_text[:, texts]

    return _ranks(num_images, num_captions, block, ties)


def text_to_image_ranks(
    similarity: np.ndarray,
    image_of_caption: np.ndarray,
    ties: str = "expected",
    text_of_caption: np.ndarray | None = None,
) -> np.ndarray:
    """Ranks each caption's best right image among all images, 1 = first.

    Args:
      similarity: f32[N, M].
      image_of_caption: int[M], row of the image that each caption describes.
      ties: as for `image_to_text_ranks`.
      text_of_caption: int[M], equal for captions of equal text: every image with a caption of that
        text is right. None: the image that it describes alone.

    Returns:
      f64[M].

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    texts, _ = _numbers(image_of_caption, text_of_caption)
    num_images, num_captions = similarity.shape

    def block(captions: slice) -> Block:
        wanted, place = np.unique(texts[captions], return_inverse=True)
        on_image = _incidence(wanted, texts, image_of_caption, num_images)
        return similarity[:, captions].T, on_image[place]

    return _ranks(num_captions, num_images, block, ties)


def is_argsort(ties: str) -> bool:
    """Returns whether ties stand as NumPy's sort leaves them.

    Raises:
      ValueError: `ties` is not one of `TIES`.
    """
    if ties not in TIES:
        raise ValueError(f"ties is {ties!r}; it must be one of {', '.join(map(repr, TIES))}")
    return ties == "argsort"


def _numbers(
    image_of_caption: np.ndarray, text_of_caption: np.ndarray | None
) -> tuple[np.ndarray, int]:
    """Returns int[M], each caption's text as a number from 0, and how many texts there are."""
    if text_of_caption is None:
        return np.arange(len(image_of_caption)), len(image_of_caption)
    texts, numbers = np.unique(text_of_caption, return_inverse=True)
    return numbers, len(texts)


def _incidence(
    keys: np.ndarray, key_of_caption: np.ndarray, column_of_caption: np.ndarray, num_columns: int
) -> np.ndarray:
    """Returns bool[len(keys), num_columns]: whether a caption joins the key and the column.

    Args:
      keys: int[B], ascending.
      key_of_caption: int[M].
      column_of_caption: int[M], below `num_columns`.
      num_columns: of the result.
    """
    place = np.minimum(np.searchsorted(keys, key_of_caption), len(keys) - 1)
    among = keys[place] == key_of_caption
    joined = np.zeros((len(keys), num_columns), bool)
    joined[place[among], column_of_caption[among]] = True
    return joined


def _ranks(
    num_queries: int, num_items: int, block: Callable[[slice], Block], ties: str
) -> np.ndarray:
    """Ranks the queries a block at a time: f64[num_queries].

    Args:
      num_queries: to rank for.
      num_items: that each query ranks.
      block: queries -> their scores f32[B, num_items] and what is right bool[B, num_items].
      ties: one of `TIES`.
    """
    rank = _argsort_ranks if is_argsort(ties) else _expected_ranks
    size = max(1, BLOCK_CELLS // num_items)
    slices = (slice(start, min(start + size, num_queries)) for start in range(0, num_queries, size))
    return np.concatenate([rank(*block(queries)) for queries in slices])


def _expected_ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns f64[B], the expected rank of the best right item over random orders of the tied."""
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    greater = (~(scores <= best)).sum(axis=1)  # NaN ranks behind everything
    tied = scores == best
    right_tied = (tied & right).sum(axis=1)
    return 1 + greater + (tied.sum(axis=1) - right_tied) / (right_tied + 1)


def _argsort_ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns f64[B], the rank of the first right item as the KAMCL release counts it.

    NumPy's default sort, read backwards, decides between equal scores; how it leaves them may
    change with NumPy's version and the processor. A NaN comes first.
    """
    # The release sorts doubles, and which of two tied ones comes first depends on the type.
    order = np.argsort(scores.astype(np.float64), axis=1)[:, ::-1]
    return 1.0 + np.argmax(np.take_along_axis(right, order, axis=1), axis=1)
