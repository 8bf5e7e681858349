"""A canvas in unit coordinates and the small things seen from above that are drawn on it.

Layouts are made in the unit square, u along and v across, and a canvas turns them about their
centre, so a scene kind never has to think about rotation. Everything random is drawn in amounts
that do not depend on the image size: one seed gives one scene at every size.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]
Region = tuple[float, float, float, float]
"""The least u and v and the greatest u and v."""

# Where the light comes from is the same all over a picture; lengths are per unit of height.
SHADOW: Point = (0.7, 0.9)
_SHADOW_INK = (18, 22, 30, 120)


def shade(colour: Colour, factor: float) -> Colour:
    """Makes a colour darker (factor < 1) or lighter (factor > 1)."""
    return _clipped(channel * factor for channel in colour)


def vary(colour: Colour, generator: Generator, spread: float = 7.0) -> Colour:
    """Makes a colour a little lighter or darker, with a standard deviation of `spread`."""
    light, *tint = generator.normal(0.0, spread, 4).tolist()
    # Mostly light: a tinted white would soon be a pink.
    changes = [light + 0.35 * part for part in tint]
    return _clipped(channel + change for channel, change in zip(colour, changes, strict=True))


def _clipped(channels: Iterable[float]) -> Colour:
    red, green, blue = (min(255, max(0, round(channel))) for channel in channels)
    return red, green, blue


def smooth_noise(generator: Generator, cells: int, size: int) -> np.ndarray:
    """Returns smooth noise f32[size, size], of unit variance at its cells x cells grid points."""
    grid = generator.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC))


class Canvas:
    """A supersampled picture that is drawn on in unit coordinates of a turned layout.

    Args:
      size: The side of the finished picture in pixels.
      ground: The colour of the ground, to which mottles are added.
      generator: Decides the mottles, the grain, the light and the turn.
    """

    def __init__(self, size: int, ground: Colour, generator: Generator):
        self._size = size
        # Small pictures need the smoother edges most, large ones the speed.
        self._oversampling = 4 if size <= 64 else 3 if size <= 128 else 2
        self._side = size * self._oversampling
        self._generator = generator
        # Quarter turns and a little more: what lies within 0.1 of the edge stays in the picture.
        turn = int(generator.integers(4)) * math.pi / 2 + generator.uniform(-0.3, 0.3)
        self._cosine, self._sine = math.cos(turn), math.sin(turn)
        self._mirror = -1.0 if generator.integers(2) else 1.0
        self._image = Image.new("RGB", (self._side, self._side), ground)
        self._draw = ImageDraw.Draw(self._image, "RGBA")
        self.texture(ground)

    def texture(self, ground: Colour, strength: float = 9.0, cells: int = 12) -> None:
        """Covers the whole picture with the ground colour in soft mottles."""
        coarse = smooth_noise(self._generator, cells, 48)
        noise = coarse + 0.6 * smooth_noise(self._generator, 40, 48)
        tint = np.array([1.1, 1.0, 0.8], np.float32)
        self.paste(np.asarray(ground, np.float32) + strength * noise[:, :, None] * tint)

    def paste(self, pixels: np.ndarray) -> None:
        """Covers the whole picture with `pixels`, float[rows, columns, 3] in 0..255, resized."""
        small = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        self._image.paste(small.resize((self._side, self._side), Image.Resampling.BILINEAR))

    def _pixel(self, point: Point) -> Point:
        u, v = (point[0] - 0.5) * self._mirror, point[1] - 0.5
        return (
            (u * self._cosine - v * self._sine + 0.5) * self._side,
            (u * self._sine + v * self._cosine + 0.5) * self._side,
        )

    def _shadow(self, height: float) -> Point:
        return height * self._side * SHADOW[0], height * self._side * SHADOW[1]

    def polygon(self, points: Sequence[Point], colour: Colour, height: float = 0.0) -> None:
        """Draws a filled polygon; one with a height (in units) throws a shadow."""
        pixels = [self._pixel(point) for point in points]
        if height:
            right, down = self._shadow(height)
            self._draw.polygon([(x + right, y + down) for x, y in pixels], fill=_SHADOW_INK)
        self._draw.polygon(pixels, fill=colour)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Draws a line through the points, `width` units wide."""
        pixels = [self._pixel(point) for point in points]
        self._draw.line(pixels, fill=colour, width=max(1, round(width * self._side)), joint="curve")

    def circle(
        self, centre: Point, radius: float, colour: Colour, height: float = 0.0, lift: float = 0.0
    ) -> None:
        """Draws a filled circle; a height throws a shadow, `lift` moves it towards the light."""
        x, y = self._pixel(centre)
        x -= lift * SHADOW[0] * self._side
        y -= lift * SHADOW[1] * self._side
        reach = radius * self._side
        if height:
            right, down = self._shadow(height)
            corners = (x - reach + right, y - reach + down, x + reach + right, y + reach + down)
            self._draw.ellipse(corners, fill=_SHADOW_INK)
        self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)

    def box(
        self,
        centre: Point,
        length: float,
        width: float,
        colour: Colour,
        angle: float = 0.0,
        height: float = 0.0,
    ) -> None:
        """Draws a rectangle, `length` along u and `width` along v before it turns by `angle`."""
        corners = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
        shape = [(along * length, across * width) for along, across in corners]
        self.polygon(place(shape, centre, 1.0, angle), colour, height)

    def finish(self) -> np.ndarray:
        """Returns the picture, u8[size, size, 3], with grain and a touch of weather added."""
        generator = self._generator
        small = np.asarray(self._image.reduce(self._oversampling), np.float32)
        fine, coarse = (smooth_noise(generator, cells, self._size) for cells in (112, 7))
        grain = 2.5 * fine + 3.0 * coarse
        # Another day, another light: gain, haze and a tint that keeps colour words true.
        gain = generator.uniform(0.9, 1.06) * generator.uniform(0.98, 1.02, 3)
        shifted = small * gain.astype(np.float32) + np.float32(generator.uniform(-6, 8))
        return np.clip(shifted + grain[:, :, None], 0, 255).astype(np.uint8)


def place(shape: Sequence[Point], centre: Point, scale: float, angle: float) -> list[Point]:
    """Scales a shape about the origin, turns it by `angle` and moves it to `centre`."""
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    return [
        (centre[0] + u * cosine - v * sine, centre[1] + u * sine + v * cosine) for u, v in shape
    ]


def ellipse(centre: Point, along: float, across: float, corners: int = 32) -> list[Point]:
    """Returns an ellipse with half axes `along` u and `across` v."""
    angles = [2 * math.pi * corner / corners for corner in range(corners)]
    return [(centre[0] + along * math.cos(a), centre[1] + across * math.sin(a)) for a in angles]


def capsule(centre: Point, length: float, width: float) -> list[Point]:
    """Returns a running track's outline: a rectangle whose short ends are half circles."""
    radius = width / 2
    straight = max(0.0, length / 2 - radius)
    points = []
    for side, start in ((1.0, -math.pi / 2), (-1.0, math.pi / 2)):
        for step in range(13):
            angle = start + math.pi * step / 12
            u = centre[0] + side * straight + radius * math.cos(angle)
            points.append((u, centre[1] + radius * math.sin(angle)))
    return points


def blob(
    centre: Point, along: float, across: float, generator: Generator, rough: float = 0.12
) -> list[Point]:
    """Returns a smooth irregular closed shape, about an ellipse of the given half axes."""
    angles = np.arange(40) * (2 * np.pi / 40)
    radius = np.ones(40)
    for wave in (2, 3, 5):
        depth = rough / wave * 2 * generator.normal()
        radius += depth * np.cos(wave * angles + 6 * generator.random())
    radius = np.clip(radius, 0.72, 1.25)
    u = centre[0] + along * radius * np.cos(angles)
    v = centre[1] + across * radius * np.sin(angles)
    return list(zip(u.tolist(), v.tolist(), strict=True))


def wavy(v: float, amplitude: float, generator: Generator) -> list[Point]:
    """Returns a gently waving line along u at height v, from beyond one edge to the other."""
    u = np.linspace(-0.3, 1.3, 25)
    phases = generator.uniform(0, 2 * np.pi, 2)
    wave = np.sin(5 * u + phases[0]) + 0.5 * np.sin(11 * u + phases[1])
    return list(zip(u.tolist(), (v + amplitude * wave).tolist(), strict=True))


def band(middle: Sequence[Point], width: float) -> list[Point]:
    """Returns a band's outline along a line along u; it is quicker to fill than a wide line."""
    near = [(u, v - width / 2) for u, v in middle]
    return near + [(u, v + width / 2) for u, v in reversed(middle)]


def grow(shape: Sequence[Point], centre: Point, margin: float) -> list[Point]:
    """Moves every point of a shape away from `centre` by `margin`, for rims and banks."""
    grown = []
    for u, v in shape:
        along, across = u - centre[0], v - centre[1]
        factor = 1.0 + margin / max(1e-6, math.hypot(along, across))
        grown.append((centre[0] + along * factor, centre[1] + across * factor))
    return grown


def tree(canvas: Canvas, centre: Point, radius: float, colour: Colour) -> None:
    """Draws a crown lit from one side, with its shadow."""
    canvas.circle(centre, radius, shade(colour, 0.8), height=radius * 0.6)
    canvas.circle(centre, radius * 0.62, shade(colour, 1.22), lift=radius * 0.25)


def trees(canvas: Canvas, region: Region, count: int, generator: Generator, radius: float) -> None:
    """Scatters green trees over a region."""
    left, near, right, far = region
    greens = ((44, 92, 44), (56, 108, 50), (38, 80, 46), (70, 118, 56))
    for u, v, size, tone in generator.random((count, 4)).tolist():
        centre = (left + u * (right - left), near + v * (far - near))
        tree(canvas, centre, radius * (0.7 + 0.6 * size), greens[int(tone * 4)])


def house(
    canvas: Canvas, centre: Point, length: float, width: float, roof: Colour, angle: float = 0.0
) -> None:
    """Draws a house with a gabled roof: one slope in the light, one darker, a ridge between."""
    canvas.box(centre, length, width, roof, angle, height=width * 0.28)
    dark = place([(0.0, width / 4)], centre, 1.0, angle)[0]
    canvas.box(dark, length, width / 2, shade(roof, 0.72), angle)
    ends = place([(-length / 2, 0.0), (length / 2, 0.0)], centre, 1.0, angle)
    canvas.line(ends, shade(roof, 1.18), 0.006)


def car(canvas: Canvas, centre: Point, length: float, body: Colour, angle: float) -> None:
    """Draws a car: its body and two dark windows."""
    canvas.box(centre, length, length * 0.48, body, angle, height=length * 0.09)
    for along, glass_length in ((0.17, 0.13), (-0.3, 0.09)):
        spot = place([(along * length, 0.0)], centre, 1.0, angle)[0]
        canvas.box(spot, glass_length * length, length * 0.38, (46, 54, 66), angle)


def road(canvas: Canvas, start: Point, end: Point, width: float) -> None:
    """Draws a straight road with pale kerbs and a dashed middle line."""
    canvas.line([start, end], (176, 174, 166), width * 1.22)
    canvas.line([start, end], (104, 106, 112), width)
    dashes = max(2, round(math.dist(start, end) / 0.09))
    for dash in range(dashes):
        ends = [
            (start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1]))
            for part in (dash / dashes, (dash + 0.5) / dashes)
        ]
        canvas.line(ends, (226, 224, 212), width * 0.09)


def rails(canvas: Canvas, v: float, width: float = 0.05) -> None:
    """Draws a railway track along u at height v: gravel, sleepers and two rails."""
    canvas.line([(-0.3, v), (1.3, v)], (112, 104, 98), width)
    for sleeper in range(32):
        u = -0.3 + sleeper * 0.05
        canvas.line([(u, v - width * 0.36), (u, v + width * 0.36)], (78, 68, 62), 0.012)
    for side in (-0.2, 0.2):
        canvas.line([(-0.3, v + side * width), (1.3, v + side * width)], (196, 196, 200), 0.007)


def slots(
    count: int,
    generator: Generator,
    region: Region = (0.1, 0.08, 0.9, 0.75),
    columns: int | None = None,
) -> tuple[list[Point], float, float]:
    """Places `count` things in even rows over a region.

    Returns:
      The centres, with some jitter, and the length (along u) and the width of the free cell that
      each centre has to itself.
    """
    if columns is None:
        columns = {1: 1, 2: 2, 3: 3, 4: 2, 5: 3, 6: 3}.get(count, math.ceil(math.sqrt(count)))
        if count in (2, 3) and generator.random() < 0.35:
            columns = count - 1
    rows = math.ceil(count / columns)
    length, width = (region[2] - region[0]) / columns, (region[3] - region[1]) / rows
    jitter = generator.uniform(-0.06, 0.06, (count, 2)).tolist()
    centres = []
    for item in range(count):
        row, column = divmod(item, columns)
        in_row = min(columns, count - row * columns)
        # A row that is not full stands in the middle.
        column_centre = (columns - in_row) / 2 + column + 0.5
        u = region[0] + (column_centre + jitter[item][0]) * length
        centres.append((u, region[1] + (row + 0.5 + jitter[item][1]) * width))
    return centres, length * 0.88, width * 0.88
