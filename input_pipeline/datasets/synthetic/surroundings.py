"""The ground under a scene and the neighbour beside it.

A neighbour fills the strip v > 0.8 of the layout, which scene kinds leave free.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from input_pipeline.datasets.synthetic import drawing
from input_pipeline.datasets.synthetic.drawing import Canvas, Colour

GROUNDS: dict[str, Colour] = {
    "grass": (122, 148, 88),
    "soil": (178, 156, 118),
    "concrete": (172, 171, 164),
    "asphalt": (112, 114, 118),
    "sand": (222, 204, 158),
    "undergrowth": (52, 78, 44),
}

WATER: Colour = (66, 118, 134)


def _cover_strip(canvas: Canvas, colour: Colour, generator: Generator) -> None:
    edge = drawing.wavy(0.8 + 0.02, 0.008, generator)  # the strip begins at 0.8
    canvas.polygon([*edge, (1.3, 1.4), (-0.3, 1.4)], colour)


def _trees(canvas: Canvas, generator: Generator) -> None:
    drawing.trees(canvas, (-0.2, 0.83, 1.2, 1.15), 62, generator, 0.042)


def _road(canvas: Canvas, generator: Generator) -> None:
    drawing.road(canvas, (-0.3, 0.885), (1.3, 0.885), generator.uniform(0.09, 0.12))


def _river(canvas: Canvas, generator: Generator) -> None:
    middle = drawing.wavy(0.91, 0.012, generator)
    width = generator.uniform(0.13, 0.16)
    canvas.polygon(drawing.band(middle, width + 0.03), (196, 184, 146))
    canvas.polygon(drawing.band(middle, width), drawing.vary(WATER, generator))
    ripple = drawing.shade(WATER, 1.2)
    for u in generator.uniform(-0.1, 1.1, 9).tolist():
        v = 0.91 + generator.uniform(-0.045, 0.045)
        canvas.line([(u, v), (u + 0.06, v)], ripple, 0.006)


def _houses(canvas: Canvas, generator: Generator) -> None:
    _cover_strip(canvas, drawing.vary((150, 152, 120), generator), generator)
    for column in range(9):
        for v in (0.89, 1.04):
            roof = drawing.vary((164, 108, 78), generator, 9.0)
            width = generator.uniform(0.075, 0.095)
            drawing.house(canvas, (-0.14 + column * 0.16, v), 0.12, width, roof)


def _buildings(canvas: Canvas, generator: Generator) -> None:
    _cover_strip(canvas, drawing.vary((178, 178, 172), generator), generator)
    for column in range(6):
        centre = (-0.12 + column * 0.25 + generator.uniform(-0.02, 0.02), 0.93)
        roof = drawing.vary((150, 152, 158), generator)
        canvas.box(centre, 0.19, generator.uniform(0.11, 0.15), roof, height=0.05)
        canvas.box(centre, 0.15, 0.07, drawing.shade(roof, 1.16))
        canvas.box((centre[0] + 0.03, centre[1]), 0.04, 0.03, drawing.shade(roof, 0.7))


def _parking(canvas: Canvas, generator: Generator) -> None:
    canvas.polygon([(-0.3, 0.81), (1.3, 0.81), (1.3, 1.4), (-0.3, 1.4)], (108, 110, 116))
    bodies = ((222, 222, 220), (60, 62, 68), (150, 152, 158), (120, 44, 44), (60, 80, 120))
    for bay in range(20):
        u = -0.2 + bay * 0.075
        canvas.line([(u, 0.83), (u, 0.97)], (220, 220, 214), 0.006)
        if generator.random() < 0.75:
            body = bodies[int(generator.integers(len(bodies)))]
            drawing.car(canvas, (u + 0.0375, 0.9), 0.11, body, np.pi / 2)


def _meadow(canvas: Canvas, generator: Generator) -> None:
    green = drawing.vary((126, 176, 80), generator)
    _cover_strip(canvas, green, generator)
    for u, v, size, tone in generator.random((45, 4)).tolist():
        patch = drawing.shade(green, 0.9 + 0.2 * tone)
        canvas.circle((-0.15 + 1.3 * u, 0.85 + 0.25 * v), 0.01 + 0.018 * size, patch)


def _bare_land(canvas: Canvas, generator: Generator) -> None:
    soil = drawing.vary((184, 148, 108), generator)
    _cover_strip(canvas, soil, generator)
    for u, v, size, tone in generator.random((40, 4)).tolist():
        centre = (-0.15 + 1.3 * u, 0.85 + 0.25 * v)
        patch = drawing.ellipse(centre, 0.02 + 0.04 * size, 0.008, 10)
        canvas.polygon(patch, drawing.shade(soil, 0.88 + 0.2 * tone))


def _railway(canvas: Canvas, generator: Generator) -> None:
    canvas.line([(-0.3, 0.91), (1.3, 0.91)], drawing.vary((146, 136, 124), generator), 0.17)
    for v in (0.875, 0.945):
        drawing.rails(canvas, v, 0.06)


def _pond(canvas: Canvas, generator: Generator) -> None:
    u = generator.uniform(0.35, 0.65)
    shape = drawing.blob((u, 0.92), 0.24, 0.075, generator, 0.06)
    canvas.polygon(drawing.grow(shape, (u, 0.92), 0.015), (196, 184, 146))
    canvas.polygon(shape, drawing.vary(WATER, generator))
    canvas.polygon(drawing.ellipse((u - 0.04, 0.91), 0.1, 0.02), drawing.shade(WATER, 1.15))


NEIGHBOURS: dict[str, Callable[[Canvas, Generator], None]] = {
    "trees": _trees,
    "road": _road,
    "river": _river,
    "houses": _houses,
    "buildings": _buildings,
    "parking lot": _parking,
    "meadow": _meadow,
    "bare land": _bare_land,
    "railway": _railway,
    "pond": _pond,
}
"""The painter of each thing that can lie beside a scene."""


def surround_with_trees(canvas: Canvas, generator: Generator) -> None:
    """Draws trees on the three sides of the layout that the neighbour's strip does not cover."""
    for region in ((-0.2, -0.1, 0.06, 0.85), (0.94, -0.1, 1.2, 0.85), (0.06, -0.15, 0.94, 0.03)):
        drawing.trees(canvas, region, 24, generator, 0.04)
