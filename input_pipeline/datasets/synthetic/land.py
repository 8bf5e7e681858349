"""Painters of open land: farmland, forest, desert, ponds and mountains."""

import math

import numpy as np
from numpy.random import Generator

from input_pipeline.datasets.synthetic import drawing
from input_pipeline.datasets.synthetic.drawing import Canvas, Colour
from input_pipeline.datasets.synthetic.kinds import kind


@kind(
    "farmland",
    counts=(2, 3, 4, 5, 6, 9),
    colours=("green", "yellow", "brown"),
    neighbours=("trees", "road", "river", "houses", "railway", "pond"),
    grounds=("soil",),
)
def _farmland(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    region = (0.03, 0.03, 0.97, 0.78)
    centres, length, width = drawing.slots(count, generator, region)
    for u, v in centres:
        tone = drawing.shade(drawing.vary(colour, generator, 6.0), generator.uniform(0.86, 1.12))
        canvas.box((u, v), length * 1.02, width * 1.02, drawing.shade(tone, 0.8))
        canvas.box((u, v), length * 0.97, width * 0.97, tone)
        furrow = drawing.shade(tone, 0.82)
        lengthwise = bool(generator.integers(2))
        across = width if lengthwise else length
        lines = max(4, round(across / 0.04))
        for line in range(1, lines):
            offset = (line / lines - 0.5) * across * 0.97
            if lengthwise:
                ends = [(u - length * 0.47, v + offset), (u + length * 0.47, v + offset)]
            else:
                ends = [(u + offset, v - width * 0.47), (u + offset, v + width * 0.47)]
            canvas.line(ends, furrow, 0.01)


@kind(
    "forest",
    colours=("green", "yellow", "red", "brown"),
    neighbours=("road", "river", "houses", "meadow", "bare land", "pond", "railway"),
    grounds=("undergrowth",),
)
def _forest(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    # A jittered grid, so that the crowns close the canopy evenly.
    columns, rows = 17, 11
    jitter = generator.uniform(-0.04, 0.04, (rows, columns, 2)).tolist()
    looks = generator.random((rows, columns, 2)).tolist()
    for row in range(rows):
        for column in range(columns):
            u = -0.18 + column * 0.085 + jitter[row][column][0]
            v = -0.16 + row * 0.088 + jitter[row][column][1]
            size, tone = looks[row][column]
            crown = drawing.shade(colour, 0.7 + 0.4 * tone)
            drawing.tree(canvas, (u, v), 0.045 + 0.022 * size, crown)


@kind(
    "desert",
    colours=("yellow", "brown", "white", "red"),
    neighbours=("road", "trees", "houses", "river", "railway", "pond"),
    grounds=("sand",),
)
def _desert(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    # Dunes of the colour, paled with sand as desert colours are.
    sand = 0.72 * np.asarray(colour, np.float32) + np.array([60.0, 54.0, 44.0], np.float32)
    warp = drawing.smooth_noise(generator, 5, 96)
    v, u = np.mgrid[0:1:96j, 0:1:96j].astype(np.float32)
    turn = generator.uniform(0, math.pi)
    phase = (u * math.cos(turn) + v * math.sin(turn)) * 2 * math.pi * generator.uniform(4, 6)
    wave = phase + 1.6 * warp
    # Steep lee sides: a sawtooth-like ridge from two harmonics.
    light = np.sin(wave) + 0.45 * np.sin(2 * wave) + 0.25 * np.sin(3 * wave)
    factor = 1.0 + 0.1 * light + 0.04 * warp
    canvas.paste(sand * factor[:, :, None])


@kind(
    "pond",
    counts=(1, 2, 3, 4),
    colours=("blue", "green", "brown", "black"),
    neighbours=("trees", "road", "houses", "bare land", "buildings", "railway"),
    grounds=("grass",),
    open_sides=True,
)
def _pond(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    centres, length, width = drawing.slots(count, generator)
    tint = drawing.shade(colour, 0.8)
    paths = [(centre[0], centre[1]) for centre in centres]
    canvas.line([(-0.2, 0.79), *paths, (1.2, 0.0)], (212, 196, 158), 0.025)
    for centre in centres:
        along = min(length * 0.47, 0.34) * generator.uniform(0.85, 1.0)
        across = min(width * 0.44, 0.27) * generator.uniform(0.85, 1.0)
        shape = drawing.blob(centre, along, across, generator)
        canvas.polygon(drawing.grow(shape, centre, 0.018), (214, 198, 156))
        canvas.polygon(shape, tint)
        inner = [
            (centre[0] + (u - centre[0]) * 0.7, centre[1] + (v - centre[1]) * 0.7) for u, v in shape
        ]
        canvas.polygon(inner, drawing.shade(tint, 0.88))
        middle = (centre[0] - along * 0.25, centre[1] - across * 0.2)
        glint = drawing.ellipse(middle, along * 0.2, across * 0.07, 16)
        canvas.polygon(glint, drawing.shade(tint, 1.5))


@kind(
    "mountain",
    colours=("green", "brown", "white", "gray"),
    neighbours=("road", "river", "houses", "trees", "meadow", "railway"),
    grounds=("soil",),
)
def _mountain(canvas: Canvas, count: int, colour: Colour, generator: Generator) -> None:
    side = 128
    relief = np.zeros((side, side), np.float32)
    for cells, weight in ((5, 1.0), (9, 0.5), (18, 0.24), (36, 0.11)):
        # Folding the noise at zero makes the sharp crests of ridges.
        relief -= weight * np.abs(drawing.smooth_noise(generator, cells, side))
    slope_v, slope_u = np.gradient(relief)
    light = np.clip(1.0 + 9.0 * (slope_u + slope_v), 0.42, 1.3)
    canvas.paste(np.asarray(colour, np.float32) * light[:, :, None] * 0.95)
