"""Recalls of each scene class, where the names of the image files carry the class."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from kamcl_jax.ranking import metrics
from kamcl_jax.ranking.ranks import Ranks

NO_CLASS = "(none)"
"""Row of the images whose names carry no class."""

_TRAILING_NUMBER = re.compile(r"[\s_.(-]*\d+\)?$")


def of_file_names(file_names: Iterable[str]) -> list[str | None]:
    """Returns the scene class that each file name carries.

    It is the folder, if the names have at least two different ones (`airport/1.jpg`,
    `beach/1.jpg`); a folder that all images share says nothing of one. Else it is the name
    without its ending and its trailing number: `sparse_residential_3.png` is of
    `sparse_residential`. A folder or a name without a letter carries none (`00012.jpg`).

    Args:
      file_names: of the images of a split, all of them.
    """
    paths = [PurePosixPath(name.replace("\\", "/")) for name in file_names]
    folders = [_with_letter(path.parent.name) for path in paths]
    if len({folder for folder in folders if folder}) < 2:
        folders = [None] * len(paths)
    return [
        folder or _with_letter(_TRAILING_NUMBER.sub("", path.stem))
        for folder, path in zip(folders, paths, strict=True)
    ]


def _with_letter(name: str) -> str | None:
    return name if any(character.isalpha() for character in name) else None


def breakdown(
    file_names: Iterable[str], image_of_caption: np.ndarray, ranks: Mapping[str, Ranks]
) -> list[dict[str, Any]] | None:
    """Returns the recalls of each scene class, each of its queries against the whole gallery.

    Args:
      file_names: of the N images.
      image_of_caption: int[M], row of the image that each caption describes.
      ranks: as `ranking.both_ways` returns them.

    Returns:
      A row a class: `class`, `images` and `captions` (how many), the recalls and mR in percent;
      by name, the images without a class last, as `NO_CLASS`. None if the names carry fewer than
      two classes, or fewer than two images a class on average: then they name the images.
    """
    of_image = of_file_names(file_names)
    named = [name for name in of_image if name is not None]
    classes = sorted(set(named))
    if len(classes) < 2 or 2 * len(classes) > len(named):
        return None
    number = {name: place for place, name in enumerate(classes)}
    class_of_image = np.array([len(classes) if name is None else number[name] for name in of_image])
    rows = classes if len(named) == len(of_image) else [*classes, NO_CLASS]
    return [
        {"class": name, **_row(class_of_image == place, image_of_caption, ranks)}
        for place, name in enumerate(rows)
    ]


def _row(
    images: np.ndarray, image_of_caption: np.ndarray, ranks: Mapping[str, Ranks]
) -> dict[str, Any]:
    """Returns the counts and the recalls of some images, bool[N], and their captions."""
    captions = images[image_of_caption]
    return {
        "images": int(np.count_nonzero(images)),
        "captions": int(np.count_nonzero(captions)),
        **metrics.recalls({"i2t": ranks["i2t"][images], "t2i": ranks["t2i"][captions]}),
    }
