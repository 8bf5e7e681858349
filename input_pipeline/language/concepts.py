"""Knowledge-aided learning, the host's part: concepts and soft labels from the captions.

Source: Ji et al. 2023, knowledge initialisation, construction and filtration; the alignment
itself is a loss. An image's own captions say what is in it: a word that several of them repeat
is a concept of the image, the more so the more often it is repeated.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from input_pipeline.language.vocabulary import unchanged

_NOT_ALPHANUMERIC = re.compile("[^A-Za-z0-9]")


def count_words(
    captions: Iterable[str], min_repeats: int = 2, form: Callable[[str], str] = unchanged
) -> dict[str, int]:
    """Counts the words that the captions of one image repeat (knowledge construction).

    Args:
      captions: The image's captions.
      min_repeats: Words counted less often are dropped; this is the paper's threshold plus one.
      form: Returns what is counted instead of a word, such as its lemma; see `word_form`.

    Returns:
      word -> count, the largest count first, ties in first-seen order. The empty word stands for
      runs of punctuation, which the release counts like a word: it may set the largest count.
    """
    counts = Counter(
        form(word)
        for caption in captions
        for word in _NOT_ALPHANUMERIC.sub(" ", caption).strip().lower().split(" ")
    )
    return {word: count for word, count in counts.most_common() if count >= min_repeats}


@dataclass(frozen=True)
class Concepts:
    """The concept words, and how images and captions get theirs.

    Attributes:
      words: The C concepts, the most frequent first.
      totals: The counts of each word, summed over the images that it was found in.
      min_repeats: How often an image's captions must repeat a word.
      form: Returns what is looked up instead of a word, such as its lemma; see `word_form`.
      label_scale: What the count of a word becomes as an image's label. 'largest' divides it by
        the image's largest count, which is the paper's way: stop words and the empty word take
        part in it, though they are no concepts. 'concepts' divides it by the largest count among
        the image's concepts, so that the one repeated most has the label 1. 'captions' divides it
        by the number of the image's captions, and is 1 at most. 'present' is 1 for each concept.
    """

    words: list[str]
    totals: list[int] = field(default_factory=list)
    min_repeats: int = 2
    form: Callable[[str], str] = unchanged
    label_scale: str = "largest"
    _columns: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_columns", {w: i for i, w in enumerate(self.words)})

    def __len__(self) -> int:
        return len(self.words)

    def image_labels(self, captions_by_image: Sequence[Sequence[str]]) -> np.ndarray:
        """Labels N images with what their own captions repeat.

        Returns:
          f32[N, C] in [0, 1]: the word's count, divided as `label_scale` says. It is above 0 for
          the same concepts of an image on any scale.
        """
        labels = np.zeros((len(captions_by_image), len(self.words)), np.float32)
        for row, captions in zip(labels, captions_by_image, strict=True):
            counts = count_words(captions, self.min_repeats, self.form)
            named = {word: count for word, count in counts.items() if word in self._columns}
            divisors = {
                "largest": max(counts.values(), default=1),
                "concepts": max(named.values(), default=1),
                "captions": len(captions),
                "present": 1,
            }
            for word, count in named.items():
                row[self._columns[word]] = min(1, count / divisors[self.label_scale])
        return labels

    def columns_of(self, tokens: Iterable[str]) -> list[int]:
        """Returns the concepts that a caption's tokens name, one named twice twice, by index."""
        forms = (self.form(token) for token in tokens)
        return [self._columns[form] for form in forms if form in self._columns]


def find_concepts(
    captions_by_image: Iterable[Sequence[str]],
    candidates: Iterable[str],
    size: int = 512,
    min_repeats: int = 2,
    form: Callable[[str], str] = unchanged,
    label_scale: str = "largest",
) -> Concepts:
    """Finds the concepts of a data set (knowledge filtration).

    The words that images' captions repeat are ranked by their total count, ties by the order in
    which the images' counts list them.

    Args:
      captions_by_image: The captions of each image, in order.
      candidates: The words that may become concepts, without stop words.
      size: The most concepts to keep; there are fewer when the captions repeat fewer words.
      min_repeats: How often an image's captions must repeat a word.
      form: What is counted instead of a word, see `count_words`.
      label_scale: See `Concepts`.
    """
    totals: Counter[str] = Counter()
    for captions in captions_by_image:
        totals.update(count_words(captions, min_repeats, form))
    allowed = frozenset(map(form, candidates))
    ranked = [(word, count) for word, count in totals.most_common() if word in allowed][:size]
    words, counts = [word for word, _ in ranked], [count for _, count in ranked]
    return Concepts(words, counts, min_repeats, form, label_scale)
