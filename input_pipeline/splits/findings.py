"""What is in the captions of a data set: counts, repetitions, lengths."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from input_pipeline.language import equal_texts
from input_pipeline.language.texts import Texts


@dataclass(frozen=True)
class Findings:
    """What is in some images' captions; which texts are equal, `equal_texts` says.

    Attributes:
      images: number of images.
      captions: number of captions.
      fewest: captions of the image that has the fewest.
      most: captions of the image that has the most.
      repeated_within: captions that an earlier caption of the same image equals.
      shared_texts: different texts that captions of several images have.
      shared_captions: captions with such a text.
      token_lengths: tokens of each caption, i32[captions].
    """

    images: int
    captions: int
    fewest: int
    most: int
    repeated_within: int
    shared_texts: int
    shared_captions: int
    token_lengths: np.ndarray


def find(texts: Texts) -> Findings:
    """Looks through the captions of one or more images."""
    counts = [len(captions) for captions in texts.captions]
    text_of_caption = equal_texts.numbered(texts.all_captions)
    image_of_caption = np.repeat(np.arange(len(texts)), counts)
    images = equal_texts.images_with_text(text_of_caption, image_of_caption)
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
    """Counts lengths in bins.

    Args:
      lengths: i32[n], not negative.
      width: of a bin; the length 0 has a bin of its own, where it occurs.

    Returns:
      (first length, last length, count) for each bin up to the longest.
    """
    counts = Counter(-(-int(length) // width) for length in lengths)
    bins = [(0, 0, counts[0])] if counts[0] else []
    return bins + [
        (width * (number - 1) + 1, width * number, counts[number])
        for number in range(1, max(counts, default=0) + 1)
    ]
