"""Which items are relevant to a query, as short lists in place of a mask over all scores.

A caption is relevant to an image, and the image to the caption, if the image has a caption of that
text. The official protocol takes every caption for a text of its own; then only an image's own
captions are relevant to it.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Lists:
    """Lists of numbers, one after another."""

    values: np.ndarray  # i64[V], those of list 0, then those of list 1, ...
    starts: np.ndarray  # i64[L + 1], where each list starts; the last is V

    @classmethod
    def of_pairs(cls, lists: np.ndarray, values: np.ndarray, num_lists: int) -> "Lists":
        """Collects pairs of a list's number and a value, int[P] each; repeated ones count once."""
        order = np.lexsort((values, lists))
        lists, values = lists[order], values[order]
        first = np.ones(len(lists), bool)
        first[1:] = (lists[1:] != lists[:-1]) | (values[1:] != values[:-1])
        ends = np.cumsum(np.bincount(lists[first], minlength=num_lists))
        return cls(values[first], np.concatenate([[0], ends]))

    @property
    def lengths(self) -> np.ndarray:
        """i64[L]."""
        return np.diff(self.starts)

    def joined(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joins the lists of the given numbers, int[B].

        It returns the place in `numbers` that each value comes from, ascending, and the values,
        i64[P] each.
        """
        lengths = self.lengths[numbers]
        places = np.repeat(np.arange(len(numbers)), lengths)
        ends = np.cumsum(lengths)
        before = np.repeat(self.starts[numbers] - ends + lengths, lengths)
        return places, self.values[before + np.arange(len(places))]


@dataclasses.dataclass(frozen=True)
class Relevance:
    """The items that are relevant to each of Q queries: those with a text of the query's.

    Lists of texts take memory in proportion to the captions; lists of items might take as much as
    all scores.
    """

    texts_of_query: Lists  # Q
    items_of_text: Lists  # one for each text

    def counts(self) -> np.ndarray:
        """Returns how many items are relevant to each query, i64[Q]."""
        texts = self.texts_of_query
        sums = np.concatenate([[0], np.cumsum(self.items_of_text.lengths[texts.values])])
        return np.diff(sums[texts.starts])

    def pairs(self, queries: slice) -> tuple[np.ndarray, np.ndarray]:
        """Returns each relevant item of the queries from `start` to `stop`, none twice.

        The query, 0 = the first of the slice, ascending, and the item are i64[P].
        """
        query, texts = self.texts_of_query.joined(np.arange(queries.start, queries.stop))
        place, items = self.items_of_text.joined(texts)
        return query[place], items


def relevance_both_ways(
    image_of_caption: np.ndarray, num_images: int, text_of_caption: np.ndarray | None = None
) -> dict[str, Relevance]:
    """Returns which captions are relevant to images and which images to captions.

    Args:
      image_of_caption: int[M], the row of the image that each caption describes.
      num_images: N.
      text_of_caption: int[M], equal for captions of equal text, as `equal_text_ids` returns
        it. None: each caption is a text of its own, as in the official protocol.

    Returns:
      `i2t`, of N queries, and `t2i`, of M.
    """
    captions = np.arange(len(image_of_caption))
    texts, num_texts = captions, len(captions)
    if text_of_caption is not None:
        found, texts = np.unique(text_of_caption, return_inverse=True)
        num_texts = len(found)
    return {
        "i2t": Relevance(
            Lists.of_pairs(image_of_caption, texts, num_images),
            Lists.of_pairs(texts, captions, num_texts),
        ),
        "t2i": Relevance(
            Lists.of_pairs(captions, texts, len(captions)),
            Lists.of_pairs(texts, image_of_caption, num_texts),
        ),
    }
