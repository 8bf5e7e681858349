"""A picture of what a query has found."""

import dataclasses
import functools
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from input_pipeline import storage
from kamcl_jax.search.printable import printable

COLUMNS, MOST = 5, 50
DOTS_PER_INCH = 110
CELL, LABEL, GAP, LINE = 1.9, 0.62, 0.2, 0.2  # inches
NAME_LETTERS, QUERY_LETTERS = 27, 110
TITLE_LINES = 3
THUMBNAIL = (2 * DOTS_PER_INCH, 2 * DOTS_PER_INCH)
"""Width and height in pixels, at most, that images are drawn with."""

# The first has most alphabets; the others have Chinese, Japanese and Korean, where installed.
_FONTS = (
    "DejaVu Sans",
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("Microsoft YaHei", "PingFang SC", "Arial Unicode MS"),
)


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image of a contact sheet.

    Attributes:
      image: of any size; None where it cannot be read any more.
      name: of its file.
      score: of the query with it.
    """

    image: Image.Image | None
    name: str
    score: float


@dataclasses.dataclass(frozen=True)
class Query:
    """What was asked.

    Attributes:
      text: the sentence, or the name of the image's file.
      image: if it was one.
      captions: that fit the image, the best first, with their scores.
    """

    text: str
    image: Image.Image | None = None
    captions: Sequence[tuple[str, float]] = ()


def draw(path: Path, query: Query, found: Sequence[Shown]) -> None:
    """Draws a query and the images that it has found.

    Args:
      path: of the PNG; it is replaced when the new one is whole.
      query: the query.
      found: the images, the nearest first; `MOST` of them are drawn.
    """
    found = found[:MOST]
    rows = -(-len(found) // COLUMNS)
    title = _lines(query.text, QUERY_LETTERS, TITLE_LINES)
    head = GAP + LINE * (1 + title.count("\n")) + (CELL + GAP if query.image else 0)
    width = GAP + COLUMNS * (CELL + GAP)
    height = head + GAP + rows * (CELL + LABEL)
    figure = Figure(figsize=(width, height))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # it is drawn as a box
        _write(figure, GAP, height - GAP, title, fontsize=11, weight="bold")
        if query.image is not None:
            _draw_query(figure, query, height - head)
        for place, shown in enumerate(found):
            row, column = divmod(place, COLUMNS)
            left = GAP + column * (CELL + GAP)
            top = height - head - GAP - row * (CELL + LABEL)
            _draw_image(figure, left, top, shown.image)
            score = f"{place + 1}:  {shown.score:.3f}"
            _write(figure, left, top - CELL - 0.05, score, fontsize=8, weight="bold")
            name = _lines(shown.name, NAME_LETTERS, 2, keep_end=True)
            _write(figure, left, top - CELL - 0.21, name, fontsize=7)
        with storage.replaced(path, storage.PART) as file:
            figure.savefig(file, format="png", dpi=DOTS_PER_INCH)


def _draw_query(figure: Figure, query: Query, top: float) -> None:
    """Draws the image that was asked with below `top`, and the captions that fit it beside it."""
    _draw_image(figure, GAP, top + CELL + GAP / 2, query.image)
    lines = [f"{score:.3f}  {_lines(text, 95, 1)}" for text, score in query.captions[:10]]
    _write(figure, 2 * GAP + CELL, top + CELL + GAP / 2, "\n".join(lines), fontsize=9)


def _draw_image(figure: Figure, left: float, top: float, image: Image.Image | None) -> None:
    """Draws an image into a square, whole and in its proportions."""
    width, height = figure.get_size_inches()
    place = (left / width, (top - CELL) / height, CELL / width, CELL / height)
    axis = figure.add_axes(place, facecolor="#f2f2f2", xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color="#bbbbbb")
    if image is None:
        axis.text(0.5, 0.5, "cannot be read", ha="center", va="center", color="grey", fontsize=8)
        return
    small = image.copy()
    small.thumbnail(THUMBNAIL)
    axis.imshow(small)
    side = max(small.size)
    beside, below = (side - small.width) / 2, (side - small.height) / 2
    axis.set(
        xlim=(-beside - 0.5, small.width + beside - 0.5),
        ylim=(small.height + below - 0.5, -below - 0.5),
    )


def _write(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    width, height = figure.get_size_inches()
    place = (left / width, top / height)
    # A name may have a $, which would begin a formula.
    figure.text(*place, text, va="top", parse_math=False, family=_installed_fonts(), **style)


@functools.cache
def _installed_fonts() -> list[str]:
    installed = set(font_manager.get_font_names())
    return [name for name in _FONTS if name in installed]


def _lines(text: str, letters: int, lines: int, keep_end: bool = False) -> str:
    """Breaks a text into lines; of one that is too long, the start or the end is left out."""
    broken = textwrap.wrap(printable(text), letters, break_on_hyphens=False)
    if len(broken) <= lines:
        return "\n".join(broken)
    if keep_end:
        return "…" + "\n".join(broken[-lines:])
    return "\n".join(broken[:lines]) + "…"
