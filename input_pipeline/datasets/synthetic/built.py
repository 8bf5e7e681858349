"""Painters of storage tanks, factories and the two kinds of residential area."""

import math

from numpy.random import Generator

from input_pipeline.datasets.synthetic import drawing
from input_pipeline.datasets.synthetic.drawing import Canvas, Colour
from input_pipeline.datasets.synthetic.kinds import kind


@kind(
    "storage_tanks",
    counts=(1, 2, 3, 4, 5, 6, 9),
    colours=("white", "red", "blue", "green", "gray"),
    neighbours=("trees", "road", "river", "houses", "buildings", "meadow", "railway"),
    grounds=("soil", "concrete"),
    open_sides=True,
)
def _storage_tanks(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    centres, length, width = drawing.slots(count, generator)
    yard = drawing.vary((158, 150, 136), generator)
    radius = min(length, width, 0.46) / 2 * generator.uniform(0.82, 0.94)
    for centre in centres:
        canvas.circle(centre, radius * 1.2, drawing.shade(yard, 0.86))
        canvas.circle(centre, radius * 1.14, yard)
    for centre in centres:
        tint = drawing.vary(colour, generator, 4.0)
        canvas.circle(centre, radius, drawing.shade(tint, 0.66), height=radius * 0.4)
        canvas.circle(centre, radius, drawing.shade(tint, 0.84), lift=radius * 0.06)
        canvas.circle(centre, radius * 0.9, tint, lift=radius * 0.06)
        canvas.circle(centre, radius * 0.14, drawing.shade(tint, 0.7), lift=radius * 0.06)
        stair = generator.uniform(0, 2 * math.pi)
        ends = drawing.place(((0.2, 0.0), (0.9, 0.0)), centre, radius, stair)
        canvas.line(ends, drawing.shade(tint, 0.7), 0.008)


@kind(
    "industrial",
    counts=(1, 2, 3, 4, 5, 6),
    colours=("blue", "red", "white", "gray", "green"),
    neighbours=("trees", "road", "river", "parking lot", "bare land", "railway"),
    grounds=("concrete", "asphalt"),
)
def _industrial(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    centres, length, width = drawing.slots(count, generator, (0.07, 0.05, 0.93, 0.77))
    for centre in centres:
        along = min(length, 0.62) * generator.uniform(0.86, 0.98)
        across = min(width, 0.44) * generator.uniform(0.8, 0.96)
        roof = drawing.vary(colour, generator, 5.0)
        canvas.box(centre, along, across, roof, height=0.045)
        # Corrugated sheds: every bay of the roof has a lit and a shaded slope.
        bays = max(2, round(along / 0.09))
        for bay in range(bays):
            u = centre[0] + ((bay + 0.75) / bays - 0.5) * along
            canvas.box((u, centre[1]), along / bays / 2, across, drawing.shade(roof, 0.8))
        for vent in (-0.25, 0.25):
            spot = (centre[0] + along * 0.5 / bays, centre[1] + vent * across)
            canvas.box(spot, 0.03, 0.03, (214, 216, 216), height=0.012)


@kind(
    "dense_residential",
    counts=(2, 3, 4, 5),
    colours=("red", "gray", "brown", "blue", "white"),
    neighbours=("trees", "road", "river", "parking lot", "meadow", "railway"),
    grounds=("concrete",),
)
def _dense_residential(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    # Rows stand back to back with a street after each; all of them lie within the picture.
    pitch = 0.76 / count
    house_width = min(0.13, pitch * 0.62)
    start = generator.uniform(-0.3, -0.2)
    for row in range(count):
        v = 0.05 + pitch * row
        canvas.line([(-0.3, v), (1.3, v)], (120, 122, 126), min(0.045, pitch * 0.26))
        u = start
        while u < 1.2:
            length = generator.uniform(0.09, 0.12)
            roof = drawing.vary(colour, generator, 7.0)
            middle = v + pitch * 0.54
            drawing.house(canvas, (u + length / 2, middle), length, house_width, roof)
            u += length + 0.022


@kind(
    "sparse_residential",
    counts=(1, 2, 3, 4),
    colours=("red", "gray", "white", "blue", "brown"),
    neighbours=("trees", "road", "river", "pond", "bare land", "railway"),
    grounds=("grass",),
    open_sides=True,
)
def _sparse_residential(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    centres, length, width = drawing.slots(count, generator)
    track = drawing.vary((206, 190, 156), generator)
    for u, v in centres:
        canvas.line([(u, v), (u + 0.04, 0.79)], track, 0.03)
    canvas.line([(-0.2, 0.78), (1.2, 0.78)], track, 0.03)
    for centre in centres:
        angle = generator.uniform(-0.35, 0.35)
        lawn = drawing.blob(centre, min(length, 0.4) * 0.5, min(width, 0.4) * 0.48, generator, 0.06)
        canvas.polygon(lawn, drawing.vary((146, 170, 96), generator))
        size = min(length, width * 1.3, 0.34) * generator.uniform(0.62, 0.72)
        wing = drawing.place([(size * 0.22, size * 0.28)], centre, 1.0, angle)[0]
        roof = drawing.vary(colour, generator, 5.0)
        drawing.house(canvas, wing, size * 0.62, size * 0.36, roof, angle + math.pi / 2)
        drawing.house(canvas, centre, size, size * 0.5, roof, angle)
