"""What is in the captions of a data set: counts, repetitions, lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from input_pipeline.language.texts import Texts, equal_text_ids, images_with_text


@dataclass(frozen=True)
class Findings:
    """What is in the captions of some images; `equal_text_ids` says which texts are equal.

    Attributes:
      images: The number of images.
      captions: The number of captions.
      fewest: How many captions the image with the fewest has.
      most: How many captions the image with the most has.
      repeated_within: How many captions equal an earlier caption of the same image.
      shared_texts: How many different texts captions of several images have.
      shared_captions: How many captions have such a text.
      token_lengths: The number of tokens of each caption, i32[captions].
    """

    images: int
    captions: int
    fewest: int
    most: int
    repeated_within: int
    shared_texts: int
    shared_captions: int
    token_lengths: np.ndarray


def examine(texts: Texts) -> Findings:
    """Looks through the captions of one or more images."""
    counts = [len(captions) for captions in texts.captions]
    text_of_caption = equal_text_ids(texts.all_captions)
    images = images_with_text(text_of_caption, texts.image_of_caption)
    return Findings(
        images=len(texts),
        captions=sum(counts),
        fewest=min(counts),
        most=max(counts),
        repeated_within=sum(counts) - int(images.sum()),
        shared_texts=int(np.count_nonzero(images > 1)),
        shared_captions=int(np.count_nonzero(images[text_of_caption] > 1)),
        token_lengths=np.array([len(tokens) for tokens in texts.tokens], np.int32),
    )


def histogram(lengths: np.ndarray, width: int = 5) -> list[tuple[int, int, int]]:
    """Counts lengths i32[n] in bins; the length 0 has a bin of its own, where it occurs.

    Returns:
      (first length, last length, count) for each bin up to the longest.
    """
    counts = Counter(-(-int(length) // width) for length in lengths)
    bins = [(0, 0, counts[0])] if counts[0] else []
    return bins + [
        (width * (number - 1) + 1, width * number, counts[number])
        for number in range(1, max(counts, default=0) + 1)
    ]


def count_and_name(images: Collection[str], what: str, most: int = 3) -> str:
    """Says how many images are something, and which, as in "2 images left out (a.jpg, b.jpg)".

    After `most` names come three dots.
    """
    names = [*list(images)[:most], *(["..."] if len(images) > most else [])]
    return f"{len(images)} image{'' if len(images) == 1 else 's'} {what} ({', '.join(names)})"
