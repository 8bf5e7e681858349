"""The progress bar of everything that goes through the images of a data set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def image_bar(label: str, total: int, images: Iterable[Any] | None = None) -> tqdm:
    """Returns a bar on stderr, which appears when the work takes longer than a second.

    Args:
      label: what is done.
      total: number of images.
      images: to go through with it; None where `update` is called instead.
    """
    return tqdm(images, label, total, unit="image", mininterval=1.0, delay=1.0)
