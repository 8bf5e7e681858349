"""Which training images are set aside for validation: a pure function of a seed."""

from __future__ import annotations

import math

import numpy as np

from input_pipeline.errors import DataError


def split_rows(
    num_images: int, validation_fraction: float = 0.2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Splits training images at random into those to train on and those to validate with.

    Source: Ji et al. 2023, experiments: 80/20, another seed for each fold.

    Args:
      num_images: number of images.
      validation_fraction: in (0, 1).
      seed: of the choice.

    Returns:
      i64[n_train] and i64[n_validation], disjoint, ascending, together 0..num_images-1.

    Raises:
      DataError: one of the parts would be empty.
    """
    # The release keeps the whole part of 80 % (a hair is added: 0.7 * 10 is 6.999...).
    num_train = math.floor((1 - validation_fraction) * num_images + 1e-9)
    if not 0 < num_train < num_images:
        raise DataError(
            f"A 'validation_fraction' of {validation_fraction} leaves no image to train on or to "
            f"validate with, out of {num_images}."
        )
    order = np.random.default_rng(seed).permutation(num_images)
    return np.sort(order[:num_train]), np.sort(order[num_train:])
