"""Captions that say where something lies, which a mirrored or turned image would belie."""

import re
from collections.abc import Iterable

import numpy as np

_COMPASS = r"(?:north|south)?(?:east|west)|north|south"

_DIRECTION = re.compile(
    rf"""\b(?:
        (?:left|right)(?:most|hand|wards?)?
        | (?:top|bottom|upper|lower)(?:most)?
        | (?:up|down)(?:side|wards?)?
        | above | below | vertical(?:ly)? | horizontal(?:ly)?
        | (?:{_COMPASS})(?:ern|ernmost|wards?)?
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)


def say_direction(captions: Iterable[str]) -> np.ndarray:
    """Returns which captions say a direction, bool[M]: left, upper, northeast, vertical, ...

    Whole words count, whatever their case, and whatever they mean: "made up of" counts as well. A
    caption too many costs little, as its image is only left as it is.
    """
    return np.array([_DIRECTION.search(caption) is not None for caption in captions], bool)
