"""The table of scene kinds that the painters enter themselves into."""

import dataclasses
from collections.abc import Callable

import numpy as np

from input_pipeline.datasets.synthetic.attributes import Attributes, Choices
from input_pipeline.datasets.synthetic.drawing import Canvas, Colour

Painter = Callable[[Canvas, Attributes, Colour, np.random.Generator], int]


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of scene.

    Attributes:
        paint: draws the scene, coloured parts in the given shade of the attributes' colour, and
            returns how many counted objects it has drawn.
        choices: what the kind's attributes may be.
        grounds: keys of `surroundings.GROUNDS` that it may stand on.
        open_sides: whether the layout's other three sides are free for trees to stand around it.
    """

    paint: Painter
    choices: Choices
    grounds: tuple[str, ...]
    open_sides: bool


REGISTRY: dict[str, Kind] = {}


def kind(
    name: str,
    *,
    colours: tuple[str, ...],
    neighbours: tuple[str, ...],
    grounds: tuple[str, ...],
    counts: tuple[int, ...] = (0,),
    open_sides: bool = False,
) -> Callable[[Painter], Painter]:
    """A decorator that enters a painter into the table of kinds."""

    def enter(paint: Painter) -> Painter:
        REGISTRY[name] = Kind(paint, Choices(counts, colours, neighbours), grounds, open_sides)
        return paint

    return enter
