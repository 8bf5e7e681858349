"""Painters of sports grounds, stadiums, resorts and beaches."""

import math

from numpy.random import Generator

from input_pipeline.datasets.synthetic import drawing
from input_pipeline.datasets.synthetic.drawing import Canvas, Colour, Point
from input_pipeline.datasets.synthetic.kinds import kind

_WHITE: Colour = (238, 238, 234)
_FREE_STANDING = ("trees", "road", "houses", "buildings", "parking lot", "river")


def _sector(radius: float, half_angle: float = math.pi / 4) -> list[Point]:
    """Returns a slice of a disc about the origin that opens towards +u."""
    angles = [half_angle * (step / 8 - 1) for step in range(17)]
    return [(0.0, 0.0), *((radius * math.cos(a), radius * math.sin(a)) for a in angles)]


@kind(
    counts=(1, 2, 3, 4),
    colours=("brown", "red", "yellow"),
    neighbours=_FREE_STANDING,
    grounds=("grass",),
    open_sides=True,
)
def _baseball_field(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    centres, length, width = drawing.slots(count, generator)
    turn = generator.uniform(0, 2 * math.pi)
    for number, centre in enumerate(centres):
        size = min(length, width, 0.6) * generator.uniform(0.97, 1.08)
        # Neighbouring fields turn their home plates to one another, as in real clusters.
        angle = turn + number * math.pi / 2
        home = drawing.place([(-0.5, 0.0)], centre, size, angle)[0]
        lawns = ((1.04, (206, 196, 160)), (1.0, (86, 156, 72)), (0.8, (100, 170, 82)))
        for reach, tint in (*lawns, (0.62, colour)):
            canvas.polygon(drawing.place(_sector(reach), home, size, angle), tint)
        diamond = ((0.08, 0.0), (0.28, 0.2), (0.48, 0.0), (0.28, -0.2))
        canvas.polygon(drawing.place(diamond, home, size, angle), (92, 160, 76))
        mound = drawing.place([(0.27, 0.0)], home, size, angle)[0]
        canvas.circle(mound, size * 0.04, colour)
        canvas.circle(home, size * 0.07, colour)
        for side in (-1.0, 1.0):
            line = drawing.place(((0.0, 0.0), (0.7, side * 0.7)), home, size, angle)
            canvas.line(line, _WHITE, 0.008)


@kind(
    counts=(1, 2, 3, 4, 6),
    colours=("green", "blue", "red", "orange"),
    neighbours=_FREE_STANDING,
    grounds=("grass", "soil"),
    open_sides=True,
)
def _tennis_courts(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    centres, length, width = drawing.slots(count, generator, (0.12, 0.08, 0.88, 0.74))
    size = min(length / 0.62, width, 0.56)
    surround = drawing.vary((128, 134, 138), generator)
    for u, v in centres:
        canvas.box((u, v), size * 0.64, size * 1.04, surround, height=0.008)
    for u, v in centres:
        across, along = size * 0.42, size * 0.8
        canvas.box((u, v), across, along, drawing.vary(colour, generator, 3.0))
        thick = 0.009
        for side in (-0.5, -0.36, 0.36, 0.5):
            x = u + side * across
            canvas.line([(x, v - along / 2), (x, v + along / 2)], _WHITE, thick)
        for end, half in ((-0.5, 0.5), (0.5, 0.5), (-0.27, 0.36), (0.27, 0.36)):
            y = v + end * along
            canvas.line([(u - across * half, y), (u + across * half, y)], _WHITE, thick)
        canvas.line([(u, v - along * 0.27), (u, v + along * 0.27)], _WHITE, thick)
        canvas.line([(u - across * 0.58, v), (u + across * 0.58, v)], (50, 54, 60), 0.013)


@kind(
    counts=(1, 2),
    colours=("red", "blue", "brown", "gray"),
    neighbours=_FREE_STANDING,
    grounds=("grass", "soil", "concrete"),
    open_sides=True,
)
def _playground(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    region = (0.08, 0.08, 0.92, 0.75)
    centres, length, width = drawing.slots(count, generator, region, columns=1)
    width = min(width, 0.46) * generator.uniform(0.92, 1.0)
    length = min(length, width * 1.75)
    for centre in centres:
        canvas.polygon(drawing.capsule(centre, length * 1.04, width * 1.08), (214, 208, 196))
        canvas.polygon(drawing.capsule(centre, length, width), colour)
        for lane in (0.13, 0.06):
            outline = drawing.capsule(centre, length - lane * width, width * (1 - lane))
            canvas.line([*outline, outline[0]], drawing.shade(colour, 1.4), 0.005)
        canvas.polygon(drawing.capsule(centre, length - 0.26 * width, width * 0.74), (78, 146, 70))
        along, across = length - 0.72 * width, width * 0.6
        for stripe in range(8):
            u = centre[0] + (stripe - 3.5) / 8 * along
            green = (92, 168, 78) if stripe % 2 else (78, 150, 70)
            canvas.box((u, centre[1]), along / 8 + 0.002, across, green)
        left, right = centre[0] - along / 2, centre[0] + along / 2
        near, far = centre[1] - across / 2, centre[1] + across / 2
        box = [(left, near), (right, near), (right, far), (left, far), (left, near)]
        canvas.line(box, _WHITE, 0.008)
        canvas.line([(centre[0], near), (centre[0], far)], _WHITE, 0.008)
        ring = drawing.ellipse(centre, across * 0.2, across * 0.2, 20)
        canvas.line([*ring, ring[0]], _WHITE, 0.008)
        for u, away in ((left, 1.0), (right, -1.0)):
            depth = u + away * along * 0.16
            low, high = centre[1] - across * 0.27, centre[1] + across * 0.27
            canvas.line([(u, low), (depth, low), (depth, high), (u, high)], _WHITE, 0.008)


@kind(
    colours=("red", "blue", "yellow", "white", "orange"),
    neighbours=_FREE_STANDING,
    grounds=("grass", "soil", "concrete"),
    open_sides=True,
)
def _stadium(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    centre = (0.5 + generator.uniform(-0.03, 0.03), 0.42)
    along, across = generator.uniform(0.36, 0.4), generator.uniform(0.29, 0.33)
    canvas.polygon(drawing.ellipse(centre, along, across), (196, 196, 194), height=0.06)
    canvas.polygon(drawing.ellipse(centre, along * 0.92, across * 0.92), colour)
    for step in (0.8, 0.68):
        ring = drawing.ellipse(centre, along * step, across * step)
        canvas.line([*ring, ring[0]], drawing.shade(colour, 0.7), 0.012)
    for aisle in range(20):
        angle = aisle * math.pi / 10
        ray = (math.cos(angle) * along, math.sin(angle) * across)
        ends = [(centre[0] + ray[0] * part, centre[1] + ray[1] * part) for part in (0.55, 0.92)]
        canvas.line(ends, drawing.shade(colour, 0.6), 0.007)
    canvas.polygon(drawing.ellipse(centre, along * 0.58, across * 0.58), (70, 138, 66))
    length, width = along * 0.86, across * 0.66
    for stripe in range(6):
        u = centre[0] + (stripe - 2.5) / 6 * length
        green = (96, 172, 82) if stripe % 2 else (80, 152, 72)
        canvas.box((u, centre[1]), length / 6 + 0.002, width, green)
    ends = [(centre[0], centre[1] - width / 2), (centre[0], centre[1] + width / 2)]
    canvas.line(ends, _WHITE, 0.008)


@kind(
    counts=(1, 2, 3, 4),
    colours=("white", "red", "blue", "brown"),
    neighbours=("trees", "road", "river", "meadow", "parking lot", "bare land"),
    grounds=("grass", "sand"),
    open_sides=True,
)
def _resort(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    terrace = drawing.vary((220, 206, 180), generator)
    canvas.polygon([(0.08, 0.05), (0.92, 0.05), (0.92, 0.78), (0.08, 0.78)], terrace)
    # An L of buildings keeps two sides; the pools have the rest of the terrace.
    for centre, length, width in (((0.5, 0.1), 0.8, 0.1), ((0.145, 0.45), 0.1, 0.52)):
        canvas.box(centre, length, width, drawing.shade(colour, 0.86), height=0.04)
        canvas.box(centre, length - 0.04, width - 0.04, colour)
    centres, length, width = drawing.slots(count, generator, (0.24, 0.2, 0.9, 0.76))
    for centre in centres:
        along = min(length, 0.42) * 0.46
        across = min(width, 0.42) * generator.uniform(0.3, 0.4)
        pool = drawing.blob(centre, along, across, generator, 0.1)
        canvas.polygon(drawing.grow(pool, centre, 0.016), (244, 242, 234))
        canvas.polygon(pool, (52, 176, 214))
        canvas.polygon(drawing.ellipse(centre, along * 0.5, across * 0.5), (84, 200, 230))
        for u, v in generator.uniform(-1, 1, (3, 2)).tolist():
            spot = (centre[0] + u * along, centre[1] + math.copysign(across + 0.035, v))
            canvas.circle(spot, 0.02, (246, 244, 238), height=0.012)
            canvas.circle(spot, 0.009, (214, 206, 190))


def _umbrella(canvas: Canvas, centre: Point, radius: float, colour: Colour) -> None:
    canvas.circle(centre, radius, colour, height=radius * 0.7)
    for slice_number in range(4):
        angle = slice_number * math.pi / 2
        piece = drawing.place(_sector(1.0, math.pi / 8), centre, radius, angle)
        canvas.polygon(piece, drawing.shade(colour, 1.3))
    canvas.circle(centre, radius * 0.16, (244, 240, 230))


@kind(
    counts=(2, 3, 4, 5, 6, 9),
    colours=("red", "blue", "green", "orange"),
    neighbours=("trees", "road", "houses", "buildings", "meadow", "parking lot"),
    grounds=("sand",),
)
def _beach(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    shore = generator.uniform(0.24, 0.3)
    edge = drawing.wavy(0.0, 0.016, generator)
    # From the wet sand out to the deep water, each band over the one before.
    bands: tuple[tuple[float, Colour], ...] = (
        (0.05, (196, 174, 130)),
        (0.02, (240, 244, 240)),
        (0.0, (112, 196, 196)),
        (-0.07, (66, 160, 184)),
        (-0.16, (40, 122, 166)),
    )
    for offset, band in bands:
        water = [(u, v + shore + offset) for u, v in edge]
        canvas.polygon([*water, (1.3, -0.5), (-0.3, -0.5)], drawing.vary(band, generator, 4.0))
    surf = [(u, v * 1.2 + shore - 0.05) for u, v in edge]
    canvas.line(surf, (206, 232, 230), 0.012)
    region = (0.1, 0.38, 0.9, 0.76)
    columns = min(count, 3 if count < 9 else 5)
    centres, length, width = drawing.slots(count, generator, region, columns)
    radius = min(0.085, length * 0.42, width * 0.42)
    for centre in centres:
        towel = (centre[0] + radius * 1.05, centre[1] + radius * 0.5)
        canvas.box(towel, radius * 0.5, radius * 1.1, (246, 240, 226), 0.4)
        _umbrella(canvas, centre, radius, colour)
