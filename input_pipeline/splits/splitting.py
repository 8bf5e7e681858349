"""Which training images are set aside for validation: a pure function of seed and fold."""

from __future__ import annotations

import math

import numpy as np

from input_pipeline.errors import DataError


def shuffled_rows(
    num_images: int, validation_fraction: float = 0.2, seed: int = 0, fold: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Shuffles training images and parts them into those to train on and those to validate with.

    Source: Ji et al. 2023, experiments: 80/20, drawn anew for each fold.

    Args:
      num_images: The number of images.
      validation_fraction: The share to validate with, in (0, 1).
      seed: The seed that the split is drawn by.
      fold: The number of the split, from 0; each is drawn independently of the others.

    Returns:
      i64[n_train] and i64[n_validation], disjoint, in shuffled order, together 0..num_images-1.
    """
    # The release keeps the whole part of 80 % (a hair is added: 0.7 * 10 is 6.999...).
    num_train = math.floor((1 - validation_fraction) * num_images + 1e-9)
    if not 0 < num_train < num_images:
        raise DataError(
            f"A 'validation_fraction' of {validation_fraction} leaves no image to train on or to "
            f"validate with, out of {num_images}."
        )
    order = np.random.default_rng([seed, fold] if fold else seed).permutation(num_images)
    return order[:num_train], order[num_train:]


def release_label_rows(shuffled_train: np.ndarray) -> np.ndarray:
    """Says whose labels each image to train on gets in the KAMCL release.

    The release keeps labels in the order of the training file and looks them up by position in the
    shuffled training part: whichever image stands at position p gets the labels of row p. Only
    an image that the shuffle leaves in its place gets its own, less than one on average.

    Args:
      shuffled_train: i64[n_train], the images to train on, from `shuffled_rows`.

    Returns:
      i64[n_train], a permutation of 0..n_train-1: entry i is the row whose labels the image at
      `np.sort(shuffled_train)[i]` gets.
    """
    return np.argsort(shuffled_train)  # the positions that the images in order were shuffled to
