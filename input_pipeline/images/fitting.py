"""How an image of any size becomes a square of a model's: squashed, or cut out of its middle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
"""Name -> PIL's filter, which averages over all pixels that a smaller one covers."""

MOST_SQUARES = 16
"""A longer strip is cut to the length of so many squares before its middle one is made: a whole
strip of 100,000 pixels by 1 would fill 20 GB once its shorter side has a model's size."""


@dataclass(frozen=True)
class Fitting:
    """What a model expects of its images.

    Attributes:
      resize: 'squash' brings both sides to the model's size, whatever the proportions; 'shortest'
        brings the shorter side to it and cuts the square out of the middle.
      filter: One of `FILTERS`.
    """

    resize: str = "squash"
    filter: str = "bilinear"


AS_RELEASE = Fitting()
"""The release of KAMCL resizes so: torchvision's `Resize((size, size))`."""


def fit(image: Image.Image, size: int, fitting: Fitting = AS_RELEASE) -> np.ndarray:
    """Makes a square of an image -> u8[size, size, 3].

    With 'shortest' the longer side and the square's place are rounded as torchvision rounds them
    (`Resize(size)`, `CenterCrop(size)`), which open_clip's transforms are made of.

    Args:
      image: An RGB image.
      size: The side of the square in pixels.
      fitting: How.
    """
    resample = FILTERS[fitting.filter]
    if fitting.resize == "squash":
        return np.asarray(image.resize((size, size), resample))
    shorter = min(image.size)
    image = _without_far_ends(image, MOST_SQUARES * shorter)
    width, height = (int(size * side / shorter) for side in image.size)
    left, top = (round((side - size) / 2) for side in (width, height))
    resized = image.resize((width, height), resample)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def _without_far_ends(image: Image.Image, longest: int) -> Image.Image:
    """Returns the middle of an image, with sides of about `longest` pixels at most."""
    # Cutting off an even number of pixels leaves the middle where it is.
    left, top = (max(0, side - longest) // 2 for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top)) if left or top else image
