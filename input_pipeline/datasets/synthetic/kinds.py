"""The kinds of scenes, and the few facts that a scene's picture and captions both follow."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

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
      paint: Draws `count` objects on a canvas, coloured parts in the given shade.
      grounds: Keys of `surroundings.GROUNDS` that it may stand on.
      open_sides: Whether the layout's other three sides are free for trees to stand there.
    """

    paint: Painter
    counts: tuple[int, ...]
    colours: tuple[str, ...]
    neighbours: tuple[str, ...]
    grounds: tuple[str, ...]
    open_sides: bool

    def draw_facts(self, name: str, generator: Generator) -> Facts:
        """Draws each fact of a scene of this kind uniformly."""
        return Facts(
            kind=name,
            count=pick(self.counts, generator),
            colour=pick(self.colours, generator),
            neighbour=pick(self.neighbours, generator),
        )

    def change_one(self, facts: Facts, generator: Generator) -> Facts:
        """Returns the same facts but for the count, the colour or the neighbour."""
        options: dict[str, tuple] = {
            "count": self.counts,
            "colour": self.colours,
            "neighbour": self.neighbours,
        }
        name = pick([name for name, values in options.items() if len(values) > 1], generator)
        others = [value for value in options[name] if value != getattr(facts, name)]
        return dataclasses.replace(facts, **{name: pick(others, generator)})


KINDS: dict[str, Kind] = {}
"""The table of kinds, which the painters in `built`, `land`, `leisure` and `transport` fill."""


def kind(
    name: str,
    *,
    colours: tuple[str, ...],
    neighbours: tuple[str, ...],
    grounds: tuple[str, ...],
    counts: tuple[int, ...] = (0,),
    open_sides: bool = False,
) -> Callable[[Painter], Painter]:
    """Returns a decorator that enters a painter into the table of kinds."""

    def enter(paint: Painter) -> Painter:
        KINDS[name] = Kind(paint, counts, colours, neighbours, grounds, open_sides)
        return paint

    return enter


def pick(options: Sequence[_T], generator: Generator) -> _T:
    """Picks an option uniformly; unlike `Generator.choice` it returns the object as it is."""
    return options[int(generator.integers(len(options)))]
