"""What a drawn scene shows: the few facts that both its picture and its captions follow."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

_T = TypeVar("_T")

# RGB of every colour word that a caption may use, spaced so that no two look alike.
PALETTE: dict[str, tuple[int, int, int]] = {
    "white": (238, 238, 232),
    "red": (196, 50, 42),
    "blue": (42, 96, 190),
    "yellow": (228, 194, 62),
    "green": (58, 140, 70),
    "gray": (140, 142, 146),
    "brown": (138, 92, 58),
    "black": (42, 42, 46),
    "orange": (226, 128, 44),
}

MANY = 8
"""Counts from this number on are told as "many", smaller ones by their number."""


@dataclasses.dataclass(frozen=True)
class Attributes:
    """The facts of one scene.

    Attributes:
        kind: name of the scene kind.
        count: how many of the kind's counted objects are drawn; 0 where a kind counts nothing.
        colour: a key of `PALETTE`, the colour of the kind's coloured part.
        neighbour: what lies beside it, a key of `surroundings.NEIGHBOURS`.
    """

    kind: str
    count: int
    colour: str
    neighbour: str


@dataclasses.dataclass(frozen=True)
class Choices:
    """What the attributes of one kind may be."""

    counts: tuple[int, ...]
    colours: tuple[str, ...]
    neighbours: tuple[str, ...]

    def sample(self, kind: str, generator: np.random.Generator) -> Attributes:
        """Attributes of a scene of this kind, each drawn uniformly."""
        return Attributes(
            kind=kind,
            count=pick(self.counts, generator),
            colour=pick(self.colours, generator),
            neighbour=pick(self.neighbours, generator),
        )

    def change_one(self, attributes: Attributes, generator: np.random.Generator) -> Attributes:
        """The same attributes but for one of count, colour and neighbour."""
        fields: list[tuple[str, Sequence]] = [
            ("count", self.counts),
            ("colour", self.colours),
            ("neighbour", self.neighbours),
        ]
        name, options = pick([field for field in fields if len(field[1]) > 1], generator)
        old = getattr(attributes, name)
        new = pick([option for option in options if option != old], generator)
        return dataclasses.replace(attributes, **{name: new})


def pick(options: Sequence[_T], generator: np.random.Generator) -> _T:
    """One of the options, uniformly (unlike Generator.choice, kept as the Python object it is)."""
    return options[int(generator.integers(len(options)))]
