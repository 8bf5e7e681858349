"""Knowledge-aided learning, the host's part: concepts and soft labels from the captions.

Source: Ji et al. 2023, knowledge initialisation, construction and filtration; the alignment
itself is a loss. An image's own captions say what is in it: a word that several of them repeat
is a concept of the image, the more so the more often it is repeated.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from input_pipeline.errors import DataError

_NOT_ALPHANUMERIC = re.compile("[^A-Za-z0-9]")


def count_words(captions: Iterable[str], min_repeats: int = 2) -> dict[str, int]:
    """Counts the words that an image's captions repeat (knowledge construction).

    Args:
      captions: of one image.
      min_repeats: words counted less often are dropped.

    Returns:
      word -> count, the largest count first, ties in first-seen order. The empty word stands for
      runs of punctuation, which the release counts like a word: it may set the largest count.
    """
    counts = Counter(
        word
        for caption in captions
        for word in _NOT_ALPHANUMERIC.sub(" ", caption).strip().lower().split(" ")
    )
    return {word: count for word, count in counts.most_common() if count >= min_repeats}


def rank_words(counts: Iterable[Mapping[str, int]], vocabulary: Container[str]) -> list[str]:
    """Ranks the words of the vocabulary by their total count (knowledge filtration).

    Args:
      counts: one `count_words` an image.
      vocabulary: the words that may become concepts; it has no stop words.

    Returns:
      The words, the most frequent first, ties in the order in which the counts list them.
    """
    totals: Counter[str] = Counter()
    for image_counts in counts:
        totals.update(image_counts)
    return [word for word, _ in totals.most_common() if word in vocabulary]


@dataclass(frozen=True)
class Concepts:
    """The concept words and how strongly each image shows them.

    Attributes:
      words: the C concepts, the most frequent first.
      image_ids: i64[N], the images that have labels.
      labels: f32[N, C] in [0, 1], row i belongs to `image_ids[i]`.
    """

    words: list[str]
    image_ids: np.ndarray
    labels: np.ndarray
    _columns: dict[str, int] = field(init=False, repr=False, compare=False)
    _rows: dict[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_columns", {w: i for i, w in enumerate(self.words)})
        object.__setattr__(self, "_rows", {int(n): i for i, n in enumerate(self.image_ids)})

    def __len__(self) -> int:
        return len(self.words)

    def labels_for(self, image_ids: Iterable[int] | np.ndarray) -> np.ndarray:
        """Looks the soft labels of images up by id, never by position.

        Args:
          image_ids: i64[n] or any integers.

        Returns:
          f32[n, C].

        Raises:
          DataError: an image has no labels.
        """
        ids = [int(image_id) for image_id in image_ids]
        missing = [image_id for image_id in ids if image_id not in self._rows]
        if missing:
            raise DataError(f"There are no concept labels for the image id {missing[0]}.")
        return self.labels[[self._rows[image_id] for image_id in ids]]

    def word_concepts(self, tokens: Iterable[str]) -> np.ndarray:
        """Marks the concepts that a caption names.

        Args:
          tokens: the caption's, from `vocabulary.tokenize`. Every concept is a word of the
            vocabulary, so a token outside of it never counts.

        Returns:
          f32[C], 1 where the concept's word is a token of the caption.
        """
        marks = np.zeros(len(self.words), np.float32)
        marks[[self._columns[token] for token in tokens if token in self._columns]] = 1
        return marks

    def to_json(self) -> str:
        """Returns the words as a JSON object `{"concepts": [...]}`; labels are not kept."""
        return json.dumps({"concepts": self.words}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Concepts:
        """Reads the words that `to_json` wrote; the result has labels for no image.

        Raises:
          DataError: the text is not such an object.
        """
        try:
            words = json.loads(text)["concepts"]
        except (ValueError, TypeError, KeyError):
            words = None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise DataError("The concepts file must be JSON with a list of strings 'concepts'.")
        return cls(words, np.zeros(0, np.int64), np.zeros((0, len(words)), np.float32))


def build(
    captions_by_image: Mapping[int, Sequence[str]] | Sequence[Sequence[str]],
    vocabulary: Container[str],
    size: int = 512,
    min_repeats: int = 2,
) -> Concepts:
    """Finds the concepts of the training images and labels the images with them.

    Args:
      captions_by_image: image id -> its captions, or a sequence of caption lists, whose ids are
        0, 1, ... then.
      vocabulary: the text vocabulary; only its words become concepts.
      size: the most concepts to keep; fewer when the captions do not repeat as many words.
      min_repeats: how often an image's captions must repeat a word.

    Returns:
      The concepts, with one row of labels an image in the order of `captions_by_image`. A label
      is the word's count over the largest count of the image; stop words take part in that
      largest count though they are no concepts.
    """
    if not isinstance(captions_by_image, Mapping):
        captions_by_image = dict(enumerate(captions_by_image))
    counts = [count_words(captions, min_repeats) for captions in captions_by_image.values()]
    words = rank_words(counts, vocabulary)[:size]
    columns = {word: index for index, word in enumerate(words)}
    labels = np.zeros((len(counts), len(words)), np.float32)
    for row, image_counts in zip(labels, counts, strict=True):
        largest = max(image_counts.values(), default=1)
        for word, count in image_counts.items():
            if word in columns:
                row[columns[word]] = count / largest
    return Concepts(words, np.fromiter(captions_by_image, np.int64, len(counts)), labels)
