"""What is in the captions of a data set: counts, repetitions, lengths."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from input_pipeline.texts import Texts


@dataclass(frozen=True)
class Findings:
    """What is in some images' captions. Two texts are equal if they differ in white space alone.

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
    plain = [[" ".join(caption.split()) for caption in captions] for captions in texts.captions]
    images_of_text: defaultdict[str, set[int]] = defaultdict(set)
    for image, captions in enumerate(plain):
        for caption in captions:
            images_of_text[caption].add(image)
    shared = {text for text, images in images_of_text.items() if len(images) > 1}
    return Findings(
        images=len(texts),
        captions=sum(counts),
        fewest=min(counts),
        most=max(counts),
        repeated_within=sum(len(captions) - len(set(captions)) for captions in plain),
        shared_texts=len(shared),
        shared_captions=sum(caption in shared for captions in plain for caption in captions),
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
