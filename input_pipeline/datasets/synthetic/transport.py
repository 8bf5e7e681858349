"""Painters of airports, harbours, bridges, car parks, roundabouts and railway stations."""

import math

from numpy.random import Generator

from input_pipeline.datasets.synthetic import drawing
from input_pipeline.datasets.synthetic.drawing import Canvas, Colour, Point
from input_pipeline.datasets.synthetic.kinds import kind

# A plane of unit length, its nose towards +u: one half of the outline, mirrored for the other.
_PLANE_HALF: tuple[Point, ...] = (
    *((0.5, 0.0), (0.44, 0.05), (0.14, 0.06), (-0.12, 0.48), (-0.22, 0.48)),
    *((-0.1, 0.06), (-0.34, 0.04), (-0.44, 0.19), (-0.5, 0.19), (-0.46, 0.0)),
)
_PLANE = [*_PLANE_HALF, *((u, -v) for u, v in reversed(_PLANE_HALF))]


def _plane(canvas: Canvas, centre: Point, length: float, colour: Colour, angle: float) -> None:
    canvas.polygon(drawing.place(_PLANE, centre, length, angle), colour, height=length * 0.07)
    body = drawing.place(((0.42, 0.0), (-0.46, 0.0)), centre, length, angle)
    canvas.line(body, drawing.shade(colour, 1.12), length * 0.07)
    tail = drawing.place(((-0.34, 0.0),), centre, length, angle)
    canvas.line(body[1:] + tail, (60, 70, 90), 0.01)


@kind(
    "airport",
    counts=(1, 2, 3, 4, 5, 6, 9),
    colours=("white", "red", "blue", "yellow"),
    neighbours=("trees", "road", "river", "houses", "parking lot", "meadow", "bare land"),
    grounds=("soil", "grass"),
)
def _airport(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    runway = generator.uniform(0.0, 0.05)
    canvas.line([(-0.3, runway), (1.3, runway)], (86, 88, 94), 0.11)
    for dash in range(16):
        u = -0.3 + dash * 0.1
        canvas.line([(u, runway), (u + 0.05, runway)], (236, 236, 230), 0.012)
    apron = drawing.vary((146, 148, 150), generator, 5.0)
    canvas.polygon([(-0.3, 0.12), (1.3, 0.12), (1.3, 0.77), (-0.3, 0.77)], apron)
    canvas.line([(-0.3, 0.145), (1.3, 0.145)], (214, 190, 80), 0.008)
    terminal = drawing.vary((196, 188, 176), generator)
    canvas.box((0.5, 0.725), 0.86, 0.08, terminal, height=0.04)
    canvas.box((0.5, 0.715), 0.8, 0.025, drawing.shade(terminal, 0.72))
    centres, length, width = drawing.slots(
        count, generator, (0.1, 0.17, 0.9, 0.67), count if count <= 4 else math.ceil(count / 2)
    )
    size = min(length, width, 0.36) * generator.uniform(0.9, 1.02)
    for u, v in centres:
        if count <= 4:
            # A bridge from the terminal's wall to the plane at its gate.
            canvas.line([(u, 0.69), (u, v + size * 0.42)], drawing.shade(terminal, 0.85), 0.02)
        nose = math.pi / 2 + generator.normal(0.0, 0.06)
        _plane(canvas, (u, v), size, drawing.vary(colour, generator, 4.0), nose)


_HULL: tuple[Point, ...] = (
    *((0.5, 0.0), (0.32, 0.15), (0.05, 0.2), (-0.46, 0.18)),
    *((-0.5, 0.0), (-0.46, -0.18), (0.05, -0.2), (0.32, -0.15)),
)


def _boat(canvas: Canvas, centre: Point, length: float, colour: Colour, angle: float) -> None:
    hull = drawing.place(_HULL, centre, length, angle)
    canvas.polygon(hull, colour, height=length * 0.06)
    canvas.polygon(drawing.place(_HULL, centre, length * 0.66, angle), drawing.shade(colour, 0.78))
    cabin = drawing.place([(-0.1, 0.0)], centre, length, angle)[0]
    canvas.box(cabin, length * 0.24, length * 0.17, drawing.shade(colour, 1.25), angle, 0.006)


@kind(
    "harbour",
    counts=(2, 3, 4, 5, 6, 10),
    colours=("white", "red", "yellow", "brown"),
    neighbours=("trees", "road", "houses", "buildings", "parking lot", "meadow"),
    grounds=("concrete",),
)
def _harbour(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    canvas.texture(drawing.vary((44, 92, 120), generator), 7.0)
    quay = drawing.vary((186, 180, 166), generator)
    pier_u = generator.uniform(0.46, 0.54)
    canvas.polygon([(-0.3, 0.71), (1.3, 0.71), (1.3, 1.4), (-0.3, 1.4)], quay, 0.02)
    canvas.line([(-0.3, 0.72), (1.3, 0.72)], drawing.shade(quay, 0.7), 0.02)
    canvas.box((pier_u, 0.4), 0.055, 0.66, drawing.shade(quay, 0.92), height=0.015)
    rows = math.ceil(count / 2)
    spacing = min(0.18, 0.6 / rows)
    length = min(0.32, spacing * 1.9)
    top = 0.4 - spacing * (rows - 1) / 2 + generator.uniform(-0.03, 0.03)
    for boat in range(count):
        row, side = divmod(boat, 2)
        away = 1.0 if side else -1.0
        v = top + row * spacing
        # Berths are parted by slim wooden jetties.
        jetty = v + spacing * 0.5
        ends = [(pier_u, jetty), (pier_u + away * 0.26, jetty)]
        canvas.line(ends, drawing.shade(quay, 0.8), 0.014)
        u = pier_u + away * (0.05 + length / 2 + generator.uniform(0.0, 0.02))
        angle = (0.0 if side else math.pi) + generator.normal(0.0, 0.03)
        _boat(canvas, (u, v), length, drawing.vary(colour, generator, 4.0), angle)


@kind(
    "bridge",
    counts=(1, 2, 3),
    colours=("white", "red", "brown", "yellow"),
    neighbours=("trees", "road", "houses", "buildings", "meadow", "bare land"),
    grounds=("grass", "soil"),
)
def _bridge(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    middle = drawing.wavy(0.38, 0.015, generator)
    width = generator.uniform(0.36, 0.44)
    canvas.polygon(drawing.band(middle, width + 0.05), (198, 184, 148))
    water = drawing.vary((60, 112, 134), generator)
    canvas.polygon(drawing.band(middle, width), water)
    for u, v in generator.random((26, 2)).tolist():
        spot = (-0.1 + 1.2 * u, 0.38 + (v - 0.5) * width * 0.85)
        canvas.line([spot, (spot[0] + 0.07, spot[1])], drawing.shade(water, 1.14), 0.006)
    gap = 0.62 / count
    shift = generator.uniform(-0.06, 0.06)
    lean = generator.uniform(-0.04, 0.04)
    for number in range(count):
        u = 0.5 + shift + (number - (count - 1) / 2) * gap
        deck = min(0.13, gap * 0.5)
        drawing.road(canvas, (u - lean, -0.3), (u + lean, 0.79), deck * 0.62)
        canvas.box((u, 0.38), deck, width + 0.08, colour, height=0.05)
        canvas.box((u, 0.38), deck * 0.5, width + 0.08, drawing.shade(colour, 0.88))
        for side in (-0.42, 0.42):
            ends = [(u + side * deck, 0.34 - width / 2), (u + side * deck, 0.42 + width / 2)]
            canvas.line(ends, drawing.shade(colour, 0.62), 0.009)


@kind(
    "parking",
    counts=(2, 3, 4, 5, 6, 20),
    colours=("white", "red", "blue", "yellow", "black"),
    neighbours=("trees", "road", "river", "buildings", "houses", "meadow"),
    grounds=("asphalt",),
)
def _parking(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    columns, rows = (8, 3) if count > 12 else (6, 2)
    bay, depth = 0.8 / columns, 0.46 / rows
    lane = (0.68 - rows * depth) / max(1, rows - 1)
    bays = []
    for row in range(rows):
        v = 0.06 + depth / 2 + row * (depth + lane)
        for column in range(columns + 1):
            u = 0.1 + column * bay
            canvas.line([(u, v - depth / 2), (u, v + depth / 2)], (232, 232, 226), 0.009)
            if column < columns:
                bays.append((u + bay / 2, v))
    for arrow in range(3):
        u = 0.25 + arrow * 0.25
        canvas.line([(u - 0.05, 0.4), (u + 0.05, 0.4)], (200, 200, 194), 0.008)
    taken = sorted(generator.permutation(len(bays))[:count].tolist())
    for spot in taken:
        angle = math.pi / 2 * (1 if generator.integers(2) else -1) + generator.normal(0.0, 0.03)
        length = min(bay * 1.5, depth * 0.84) * generator.uniform(0.94, 1.04)
        drawing.car(canvas, bays[spot], length, drawing.vary(colour, generator, 5.0), angle)


@kind(
    "roundabout",
    counts=(3, 4, 5, 6),
    colours=("green", "brown", "red", "blue"),
    neighbours=("trees", "houses", "river", "buildings", "parking lot", "pond"),
    grounds=("grass", "soil"),
    open_sides=True,
)
def _roundabout(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    centre = (0.5 + generator.uniform(-0.03, 0.03), 0.42)
    radius = generator.uniform(0.2, 0.24)
    first = generator.uniform(0, 2 * math.pi)
    for arm in range(count):
        angle = first + 2 * math.pi * (arm + generator.uniform(-0.08, 0.08)) / count
        end = drawing.place([(1.0, 0.0)], centre, 1.0, angle)[0]
        drawing.road(canvas, centre, end, 0.085)
    canvas.circle(centre, radius + 0.012, (186, 184, 176))
    canvas.circle(centre, radius, (104, 106, 112))
    for dash in range(20):
        dashed = ((radius * 0.81, 0.0), (radius * 0.8, 0.03))
        ends = drawing.place(dashed, centre, 1.0, dash * math.pi / 10)
        canvas.line(ends, (226, 224, 212), 0.007)
    canvas.circle(centre, radius * 0.62, (206, 204, 196))
    canvas.circle(centre, radius * 0.57, colour)
    canvas.circle(centre, radius * 0.36, drawing.shade(colour, 1.2))
    canvas.circle(centre, radius * 0.2, drawing.shade(colour, 0.85))


@kind(
    "railway_station",
    counts=(1, 2, 3, 4),
    colours=("white", "red", "blue", "yellow", "green"),
    neighbours=("trees", "road", "houses", "buildings", "parking lot", "bare land"),
    grounds=("soil", "concrete"),
)
def _railway_station(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    canvas.polygon([(-0.3, 0.0), (1.3, 0.0), (1.3, 0.58), (-0.3, 0.58)], (140, 130, 120))
    tracks = [0.07 + track * 0.093 for track in range(6)]
    for track in tracks:
        drawing.rails(canvas, track, 0.06)
    platform = drawing.vary((196, 192, 184), generator)
    canvas.box((0.5, 0.3), 1.7, 0.04, platform, height=0.01)
    hall = drawing.vary((206, 200, 190), generator)
    canvas.box((0.5, 0.685), 0.62, 0.13, hall, height=0.04)
    canvas.box((0.5, 0.72), 0.62, 0.06, drawing.shade(hall, 0.78))
    canvas.box((0.5, 0.66), 0.16, 0.2, drawing.shade(hall, 0.92), height=0.02)
    for track in sorted(generator.permutation(len(tracks))[:count].tolist()):
        start = generator.uniform(0.1, 0.26)
        for carriage in range(3):
            centre = (start + 0.11 + carriage * 0.215, tracks[track])
            canvas.box(centre, 0.205, 0.056, drawing.vary(colour, generator, 4.0), height=0.014)
            canvas.box(centre, 0.17, 0.014, drawing.shade(colour, 0.75))
