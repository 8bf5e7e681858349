"""Which captions say the same, word for word."""

from collections.abc import Iterable

import numpy as np


def numbered(captions: Iterable[str]) -> np.ndarray:
    """Numbers captions by their text.

    Two texts are equal if they are the same characters once each run of white space is a single
    space and there is none at either end. Case and punctuation count.

    Args:
      captions: M texts.

    Returns:
      i64[M], the same number for equal texts, from 0 in the order of their first appearance.
    """
    numbers: dict[str, int] = {}
    texts = (" ".join(caption.split()) for caption in captions)
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)


def images_with_text(text_of_caption: np.ndarray, image_of_caption: np.ndarray) -> np.ndarray:
    """Returns how many images have a caption of each text.

    Args:
      text_of_caption: int[M], as `numbered` returns it.
      image_of_caption: int[M].

    Returns:
      i64[T], at least 1.
    """
    pairs = np.unique(np.stack([text_of_caption, image_of_caption]), axis=1)
    return np.bincount(pairs[0])


def num_shared(text_of_caption: np.ndarray, image_of_caption: np.ndarray) -> int:
    """Returns how many captions have a text that a caption of another image has too.

    Args:
      text_of_caption: int[M], as `numbered` returns it.
      image_of_caption: int[M].
    """
    images = images_with_text(text_of_caption, image_of_caption)
    return int(np.count_nonzero(images[text_of_caption] > 1))
