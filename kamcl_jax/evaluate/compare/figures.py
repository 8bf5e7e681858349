"""The pictures of a comparison: recalls, curves, and what the same captions retrieve."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from input_pipeline.splits.examples import Examples
from kamcl_jax.evaluate.compare.runs import ComparedRun
from kamcl_jax.evaluate.figures import DOTS_PER_INCH, TOP, Retrieved, frame
from kamcl_jax.ranking.metrics import RECALLS

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#000000",
    "#999999",
)
"""Of the runs, told apart by colour-blind eyes, too (after Okabe and Ito)."""

BACKGROUNDS = ("#ffffff", "#f1f1f1")
"""Of one caption and the next."""

METRICS = (*RECALLS, "mR")
LOSSES = ("loss", "triplet", "contrastive")


class Retrieval(NamedTuple):
    """What a caption retrieves in one of the runs.

    Attributes:
      label: of the run.
      retrieved: by it.
    """

    label: str
    retrieved: Retrieved


def recall_bars(path: Path, runs: Sequence[ComparedRun]) -> None:
    """Draws the test recalls of all runs with their 95 % intervals.

    Args:
      path: of the PNG.
      runs: up to as many as there are `COLOURS`.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    axis = figure.subplots()
    places, width = np.arange(len(METRICS)), 0.8 / len(runs)
    for index, (run, colour) in enumerate(zip(runs, COLOURS, strict=False)):
        test, bounds = run.results["test"], run.results["intervals"]["test"]
        values = np.array([test[name] for name in METRICS])
        low, high = np.array([bounds[name] for name in METRICS]).T
        axis.bar(
            places + (index - (len(runs) - 1) / 2) * width,
            values,
            width,
            color=colour,
            label=run.label,
            yerr=np.maximum([values - low, high - values], 0),
            error_kw={"elinewidth": 1.2, "capsize": 2, "ecolor": "#444444"},
        )
    names = [name.replace("_r", " R@") for name in METRICS]
    axis.set_xticks(places, names)
    axis.set(ylabel="test recall (%), 95 % interval", ylim=(0, 105), yticks=range(0, 101, 20))
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    _legend(figure, axis)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def curves(path: Path, runs: Sequence[ComparedRun]) -> None:
    """Draws losses and validation mR over epochs, the runs over each other.

    Args:
      path: of the PNG.
      runs: up to as many as there are `COLOURS`; one without a history has no curve.
    """
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    for axis, term in zip(axes.flat, (*LOSSES, "mR"), strict=True):
        for run, colour in zip(runs, COLOURS, strict=False):
            history, validation = run.stored.history, term == "mR"
            rows = history.validation if validation else history.train
            epochs, values = [row["epoch"] for row in rows], [row[term] for row in rows]
            marker = "o" if validation else None
            axis.plot(
                epochs, values, color=colour, label=run.label, linewidth=1.4, marker=marker, ms=3.5
            )
        title = {"loss": "weighted sum of the losses", "mR": "validation mR (%)"}
        axis.set_title(title.get(term, f"{term} loss (unweighted)"), fontsize=10)
        axis.grid(alpha=0.3)
    axes[1, 1].set_ylim(0, 100)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    _legend(figure, axes[0, 0])
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a folder's name may have a $


def query_sheet(path: Path, examples: Examples, queries: Sequence[Sequence[Retrieval]]) -> None:
    """Draws captions with the images that they retrieve in two or more runs; hits are framed.

    Args:
      path: of the PNG.
      examples: the test split.
      queries: for each caption what it retrieves, the same number of runs each.
    """
    rows = max(map(len, queries))
    figure = Figure(figsize=(11.5, 0.5 + 1.6 * rows * len(queries)), layout="constrained")
    figure.suptitle("captions that the runs rank most differently; the match is framed in green")
    parts = figure.subfigures(len(queries), squeeze=False).flat
    for index, (part, query) in enumerate(zip(parts, queries, strict=True)):
        part.set_facecolor(BACKGROUNDS[index % len(BACKGROUNDS)])
        axes = part.subplots(rows, TOP + 1, squeeze=False, width_ratios=[1.7] + [1] * TOP)
        for axis in axes.flat:
            axis.axis("off")
        for place, (row, retrieval) in enumerate(zip(axes, query, strict=True)):
            _draw_retrieval(row, examples, retrieval, with_caption=place == 0)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _draw_retrieval(
    row: Sequence[Axes], examples: Examples, retrieval: Retrieval, *, with_caption: bool
) -> None:
    label, retrieved = retrieval
    caption = examples.captions[retrieved.caption] if with_caption else ""
    _write(row[0], caption, f"{label}: rank {retrieved.rank:.10g}")
    match = examples.image_of_caption[retrieved.caption]
    for axis, image, score in zip(row[1:], retrieved.images, retrieved.scores, strict=False):
        axis.axis("on")
        axis.imshow(examples.images[image])
        axis.set_title(f"{score:.3f}", fontsize=8)
        frame(axis, hit=image == match)


def _write(axis: Axes, caption: str, found: str) -> None:
    axis.set(xlim=(0, 1), ylim=(0, 1))
    words = textwrap.shorten(" ".join(caption.split()), 110, placeholder=" …")
    axis.text(0, 1, textwrap.fill(words, 32), fontsize=9, va="top", parse_math=False)
    axis.text(0, 0.02, found, fontsize=9, weight="bold", parse_math=False)
