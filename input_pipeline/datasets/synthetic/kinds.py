"""All scene kinds, and the drawing of a scene from its attributes."""

import numpy as np

# The painters' modules are imported for what they enter into the registry.
from input_pipeline.datasets.synthetic import built, drawing, land, leisure, transport  # noqa: F401
from input_pipeline.datasets.synthetic.attributes import PALETTE, Attributes, pick
from input_pipeline.datasets.synthetic.drawing import Canvas
from input_pipeline.datasets.synthetic.registry import REGISTRY
from input_pipeline.datasets.synthetic.surroundings import GROUNDS, NEIGHBOURS, surround_with_trees

KINDS: tuple[str, ...] = tuple(sorted(REGISTRY))


def paint(
    attributes: Attributes, generator: np.random.Generator, size: int
) -> tuple[np.ndarray, int]:
    """Draw a scene with the given attributes; all else comes from the generator.

    Returns:
        the picture, uint8[size, size, 3], and how many counted objects were drawn in it.
    """
    kind = REGISTRY[attributes.kind]
    grounds = kind.grounds
    if attributes.neighbour == "meadow":
        # A meadow beside grass would not be seen.
        grounds = tuple(ground for ground in grounds if ground != "grass") or grounds
    ground = drawing.vary(GROUNDS[pick(grounds, generator)], generator)
    canvas = Canvas(size, ground, generator)
    colour = drawing.vary(PALETTE[attributes.colour], generator, 3.0)
    drawn = kind.paint(canvas, attributes, colour, generator)
    NEIGHBOURS[attributes.neighbour](canvas, generator)
    if attributes.neighbour == "trees" and kind.open_sides:
        surround_with_trees(canvas, generator)
    return canvas.finish(), drawn
