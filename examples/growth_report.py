"""The tables and the plots of `growth.py`."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from kamcl_jax.evaluate.figures import BAR, DOTS_PER_INCH, MISS
from kamcl_jax.evaluate.tables import markdown_table

Point = dict[str, float]
"""What was measured at one size of an axis: `size`, `seconds` and the axis's own figures."""

EVALUATION = "evaluation"  # the axis that has no training step

GB, MB = 1e9, 1e6


@dataclasses.dataclass(frozen=True)
class Axis:
    """One size that grows.

    Attributes:
      title: The title of its part of the report.
      label: The name of the size, with its unit.
      sizes: The sizes to measure, ascending.
      largest: The sizes that `--largest` adds.
      alone: Whether each size is measured by a process of its own.
      detail: What follows the title over the table.
    """

    title: str
    label: str
    sizes: tuple[int, ...]
    largest: tuple[int, ...] = ()
    alone: bool = False
    detail: str = ""


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Returns p of value ~ size^p between the last two points; NaN if there is only one."""
    if len(sizes) < 2:
        return math.nan
    return math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])


Column = tuple[str, Callable[[Point], str]]

_SECONDS: Column = ("seconds", lambda point: f"{point['seconds']:.3f}")
_OF_STEP: tuple[Column, ...] = (
    _SECONDS,
    ("GFLOP a device", lambda point: f"{point['flops'] / 1e9:.2f}"),
    ("MB a device", lambda point: f"{point['memory'] / MB:.0f}"),
)
_OF_DEVICES: tuple[Column, ...] = (
    ("core seconds a device", lambda point: f"{point['work']:.3f}"),
    *_OF_STEP,
)
_OF_EVALUATION: tuple[Column, ...] = (
    _SECONDS,
    ("GB at the peak", lambda point: f"{point['peak'] / GB:.2f}"),
    ("of it before ranking", lambda point: f"{point['before'] / GB:.2f}"),
    ("GB of all scores", lambda point: f"{point['matrix'] / GB:.2f}"),
)


def _columns(name: str) -> tuple[Column, ...]:
    return {EVALUATION: _OF_EVALUATION, "devices": _OF_DEVICES}.get(name, _OF_STEP)


def report(
    measured: Mapping[str, Sequence[Point]], axes: Mapping[str, Axis], introduction: str
) -> str:
    """Returns the introduction and the tables of all axes in Markdown, in the order of `axes`."""
    parts = [_axis_text(name, axes[name], measured[name]) for name in axes if name in measured]
    return "\n\n".join([introduction, *parts]) + "\n"


def _axis_text(name: str, axis: Axis, points: Sequence[Point]) -> str:
    columns = _columns(name)
    head = [axis.label, *(title for title, _ in columns)]
    rows = [[f"{point['size']:,}", *(write(point) for _, write in columns)] for point in points]
    title = f"### {axis.title}{axis.detail}"
    return "\n\n".join([title, markdown_table(head, rows, left=0), _growth(name, points)])


def _growth(name: str, points: Sequence[Point]) -> str:
    if len(points) < 2:
        return "One size only: no exponent."
    drawn = "work" if name == "devices" else "seconds"
    sizes = [point["size"] for point in points]
    power = exponent(sizes, [point[drawn] for point in points])
    what = "work of a device" if name == "devices" else "time"
    return f"Between the last two sizes the {what} grows with the size to the power of {power:.2f}."


def draw(path: Path, measured: Mapping[str, Sequence[Point]], axes: Mapping[str, Axis]) -> None:
    """Draws a plot with two logarithmic scales for each axis, in the order of `axes`."""
    panels: list[tuple[str, str, str]] = []
    for name in (name for name in axes if name in measured):
        if name == "devices":
            panels.append((name, "work", "core seconds a step and device"))
        else:
            panels.append((name, "seconds", "seconds" if name == EVALUATION else "seconds a step"))
        if name == EVALUATION:
            panels.append((name, "peak", "GB of memory"))
    across = min(len(panels), 4)
    down = -(-len(panels) // across)
    figure = Figure(figsize=(3.4 * across, 3.2 * down), layout="constrained")
    places = figure.subplots(down, across, squeeze=False).flat
    for place, (name, field, label) in zip(places, panels, strict=False):
        _panel(place, axes[name], measured[name], field, label)
    for place in places[len(panels) :]:
        place.axis("off")
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _panel(place: Axes, axis: Axis, points: Sequence[Point], field: str, label: str) -> None:
    """Draws one field of an axis's points, and proportional growth beside it."""
    unit = GB if field == "peak" else 1.0
    sizes = [point["size"] for point in points]
    values = [point[field] / unit for point in points]
    power = exponent(sizes, values)
    place.plot(sizes, values, color=BAR, marker="o", linewidth=1.5, label="measured")
    if field == "peak":
        matrix = [point["matrix"] / unit for point in points]
        place.plot(sizes, matrix, color=MISS, linestyle="--", label="all scores at once")
    elif field == "seconds":
        straight = [values[-1] * size / sizes[-1] for size in sizes]
        place.plot(sizes, straight, color=MISS, linestyle="--", label="proportional")
    place.set(xscale="log", yscale="log", xlabel=axis.label, ylabel=label)
    low, high = place.get_ylim()
    if high < 10 * low:  # a decade, so that what is nearly constant looks so
        middle = math.sqrt(low * high)
        place.set_ylim(middle / math.sqrt(10), middle * math.sqrt(10))
    end = "" if math.isnan(power) else f": size$^{{{power:.2f}}}$ at the end"
    place.set_title(f"{axis.title}{end}", fontsize=10)
    place.set_xticks(sizes, [_short(size) for size in sizes], fontsize=8)
    place.xaxis.set_minor_locator(NullLocator())
    place.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    place.grid(alpha=0.3)
    place.legend(fontsize=8)


def _short(size: float) -> str:
    """Returns a size as an axis has room for it: 8192 -> "8k"."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{size / unit:.0f}{letter}"
    return f"{size:.0f}"
