"""The kinds of scenes, and the few facts that a scene's picture and captions both follow."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from numpy.random import Generator

from input_pipeline.datasets.synthetic.drawing import Canvas, Colour

_T = TypeVar("_T")

# The colour words that a caption may use; no two of the colours look alike.
PALETTE: dict[str, Colour] = {
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

Painter = Callable[[Canvas, int, Colour, Generator], None]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What one scene shows.

    Attributes:
      kind: A key of `KINDS`.
      count: How many of the kind's objects are drawn; 0 where a kind counts nothing.
      colour: A key of `PALETTE`, the colour of the kind's coloured part.
      neighbour: What lies beside it, a key of `surroundings.NEIGHBOURS`.
    """

    kind: str
    count: int
    colour: str
    neighbour: str


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of scene: how it is drawn, and what the facts of such a scene may be.

    Attributes:
      name: As in `KINDS`.
      paint: Draws as many objects as told on a canvas, coloured parts in the given shade.
      grounds: Keys of `surroundings.GROUNDS` that it may stand on.
      open_sides: Whether the layout's other three sides are free for trees to stand there.
    """

    name: str
    paint: Painter
    colours: tuple[str, ...]
    neighbours: tuple[str, ...]
    grounds: tuple[str, ...]
    counts: tuple[int, ...] = (0,)
    open_sides: bool = False

    @property
    def options(self) -> dict[str, tuple]:
        """Each fact that scenes of this kind may differ in -> its possible values."""
        return {"count": self.counts, "colour": self.colours, "neighbour": self.neighbours}

    def draw_facts(self, generator: Generator) -> Facts:
        """Draws each fact of a scene of this kind uniformly."""
        drawn = {fact: pick(values, generator) for fact, values in self.options.items()}
        return Facts(self.name, **drawn)

    def change_one(self, facts: Facts, generator: Generator) -> Facts:
        """Returns the same facts but for the count, the colour or the neighbour."""
        fact = pick([fact for fact, values in self.options.items() if len(values) > 1], generator)
        others = [value for value in self.options[fact] if value != getattr(facts, fact)]
        return dataclasses.replace(facts, **{fact: pick(others, generator)})


KINDS: dict[str, Kind] = {}
"""The table of kinds, which the painters in `built`, `land`, `leisure` and `transport` fill."""


def kind(**fields: Any) -> Callable[[Painter], Painter]:
    """Returns a decorator that enters a painter into `KINDS`, with the other fields of `Kind`."""

    def enter(paint: Painter) -> Painter:
        name = paint.__name__.removeprefix("_")
        KINDS[name] = Kind(name, paint, **fields)
        return paint

    return enter


def pick(options: Sequence[_T], generator: Generator) -> _T:
    """Picks an option uniformly; unlike `Generator.choice` it returns the object as it is."""
    return options[int(generator.integers(len(options)))]
