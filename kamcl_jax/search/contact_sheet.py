"""A picture of what a query has found."""

from __future__ import annotations

import functools
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image, ImageOps

from input_pipeline import storage
from kamcl_jax.search.index import printable

if TYPE_CHECKING:  # it takes half a second to import: only who draws waits for it
    from matplotlib.figure import Figure

COLUMNS, MOST_IMAGES, MOST_CAPTIONS = 5, 50, 10
DOTS_PER_INCH = 110
CELL, LABEL, GAP, LINE = 1.9, 0.62, 0.2, 0.2  # inches
BACKGROUND = "#f2f2f2"
THUMBNAIL = (2 * DOTS_PER_INCH, 2 * DOTS_PER_INCH)
"""The width and height in pixels that images are drawn with."""

# The first has most alphabets; the others have Chinese, Japanese and Korean, where installed.
_FONTS = (
    "DejaVu Sans",
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("Microsoft YaHei", "PingFang SC", "Arial Unicode MS"),
)


class FoundImage(NamedTuple):
    """An image of a contact sheet; `image` is None where it cannot be read any more."""

    image: Image.Image | None
    name: str
    score: float


class Query(NamedTuple):
    """What was asked: a sentence, or an image and its file's name.

    The captions are those that fit an image, the best first, with their scores.
    """

    text: str
    image: Image.Image | None = None
    captions: Sequence[tuple[str, float]] = ()


def draw(path: Path, query: Query, found: Sequence[FoundImage]) -> None:
    """Draws a query and at most `MOST_IMAGES` images that it has found, as a PNG.

    A file that is there is replaced when the new one is whole.
    """
    from matplotlib.figure import Figure

    found = found[:MOST_IMAGES]
    rows = -(-len(found) // COLUMNS)
    title = _lines(query.text, letters=110, lines=3)
    head = GAP + LINE * (1 + title.count("\n")) + (CELL + GAP if query.image else 0)
    height = head + GAP + rows * (CELL + LABEL)
    figure = Figure(figsize=(GAP + COLUMNS * (CELL + GAP), height))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # it is drawn as a box
        _write(figure, GAP, height - GAP, title, fontsize=11, weight="bold")
        if query.image is not None:
            _draw_query(figure, query, height - head + CELL + GAP / 2)
        for place, one in enumerate(found):
            row, column = divmod(place, COLUMNS)
            left = GAP + column * (CELL + GAP)
            top = height - head - GAP - row * (CELL + LABEL)
            _draw_image(figure, left, top, one.image)
            score = f"{place + 1}:  {one.score:.3f}"
            _write(figure, left, top - CELL - 0.05, score, fontsize=8, weight="bold")
            name = _lines(one.name, letters=27, lines=2, keep_end=True)
            _write(figure, left, top - CELL - 0.21, name, fontsize=7)
        with storage.replaced(path, storage.PART) as file:
            figure.savefig(file, format="png", dpi=DOTS_PER_INCH)


def _draw_query(figure: Figure, query: Query, top: float) -> None:
    _draw_image(figure, GAP, top, query.image)
    lines = [
        f"{score:.3f}  {_lines(text, letters=95, lines=1)}"
        for text, score in query.captions[:MOST_CAPTIONS]
    ]
    _write(figure, 2 * GAP + CELL, top, "\n".join(lines), fontsize=9)


def _draw_image(figure: Figure, left: float, top: float, image: Image.Image | None) -> None:
    width, height = figure.get_size_inches()
    place = (left / width, (top - CELL) / height, CELL / width, CELL / height)
    axis = figure.add_axes(place, facecolor=BACKGROUND, xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color="#bbbbbb")
    if image is None:
        axis.text(0.5, 0.5, "cannot be read", ha="center", va="center", color="grey", fontsize=8)
        return
    axis.imshow(ImageOps.pad(image, THUMBNAIL, color=BACKGROUND))


def _write(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    width, height = figure.get_size_inches()
    place = (left / width, top / height)
    # A name may have a $, which would begin a formula.
    figure.text(*place, text, va="top", parse_math=False, family=_installed_fonts(), **style)


@functools.cache
def _installed_fonts() -> list[str]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return [name for name in _FONTS if name in installed]


def _lines(text: str, letters: int, lines: int, keep_end: bool = False) -> str:
    """Breaks a text into lines; the start or the end of one that is too long is left out."""
    broken = textwrap.wrap(printable(text), letters, break_on_hyphens=False)
    if len(broken) <= lines:
        return "\n".join(broken)
    if keep_end:
        return "…" + "\n".join(broken[-lines:])
    return "\n".join(broken[:lines]) + "…"
