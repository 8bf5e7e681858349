"""The pictures of a report: curves of training, scene classes, captions and what they retrieve."""

import dataclasses
import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from kamcl_jax.evaluate import tables
from kamcl_jax.ranking.metrics import NO_CLASS, RECALL_AT

HIT = "#1a9850"
MISS = "#bbbbbb"
BAR = "#4575b4"
TOP = 5
DOTS_PER_INCH = 110

Picture = Callable[[int], Image.Image]
"""The row of an image -> the image, as large as it is to be drawn."""


@dataclasses.dataclass(frozen=True)
class Retrieved:
    """What a caption retrieves."""

    caption: str
    images: Sequence[int]  # rows, the best first
    scores: Sequence[float]  # of these images
    relevant: Sequence[bool]  # whether each of them has a caption of this text
    rank: float  # of the best image that does, 1 = first; the expected rank where scores tie


def whole_epochs(axis: Axes) -> None:
    """Labels the horizontal axis, epochs, with whole numbers alone."""
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def loss_curves(
    path: Path,
    rows: Sequence[dict[str, float]],
    steps_per_epoch: int,
    alignment_from_epoch: int,
    extra_terms: Sequence[str] = (),
) -> None:
    """Draws the losses over epochs, with the border between the schedule's two steps.

    Args:
      path: The PNG.
      rows: `History.train`.
      steps_per_epoch: The number of steps in an epoch.
      alignment_from_epoch: The first epoch of step 2, from 0.
      extra_terms: The terms that the config adds to the paper's.
    """
    epochs = [row["step"] / steps_per_epoch for row in rows]
    terms = ("loss", "triplet", "contrastive", "alignment", *extra_terms)
    lines = math.ceil(len(terms) / 2)
    figure = Figure(figsize=(10, 3 * lines), layout="constrained")
    axes = figure.subplots(lines, 2, sharex=True)
    for axis in axes.flat[len(terms) :]:
        axis.axis("off")
    for axis, term in zip(axes.flat, terms, strict=False):
        axis.plot(epochs, [row[term] for row in rows], linewidth=1.5)
        title = "weighted sum of the losses" if term == "loss" else f"{term} loss (unweighted)"
        axis.set_title(title, fontsize=10, parse_math=False)
        if not extra_terms or term in terms[1:4]:  # the others may be negative
            axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        if epochs and alignment_from_epoch < epochs[-1]:
            axis.axvline(alignment_from_epoch, color="black", linestyle="--", linewidth=1)
            late = 2 * alignment_from_epoch > epochs[-1]  # to the left, or it meets the frame
            axis.annotate(
                "step 2 begins",
                (alignment_from_epoch, 1),
                (-4 if late else 4, -4),
                xycoords=axis.get_xaxis_transform(),
                textcoords="offset points",
                ha="right" if late else "left",
                va="top",
                fontsize=8,
            )
    for axis in axes.flat[len(terms) - 2 : len(terms)]:  # the lowest of each column
        whole_epochs(axis)
        axis.tick_params(labelbottom=True)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def recall_curves(path: Path, rows: Sequence[dict[str, float]], chance: float) -> None:
    """Draws `History.validation`, recalls over epochs, and the mR of random scores, in percent."""
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for way, style in (("i2t", "-"), ("t2i", "--")):
        for k, colour in zip(RECALL_AT, ("#d73027", "#fc8d59", "#4575b4"), strict=True):
            values = [row[f"{way}_r{k}"] for row in rows]
            axis.plot(epochs, values, style, color=colour, label=f"{way} R@{k}", linewidth=1.3)
    mean_recalls = [row["mR"] for row in rows]
    axis.plot(epochs, mean_recalls, color="black", marker="o", linewidth=2.2, label="mR")
    best = int(np.argmax(mean_recalls))
    axis.annotate(
        f"best {mean_recalls[best]:.1f}",
        (epochs[best], mean_recalls[best]),
        textcoords="offset points",
        xytext=(0, 8),
        ha="center",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )
    axis.axhline(chance, color="grey", linestyle=":", label="mR by chance")
    axis.set(ylabel="validation recall (%)", ylim=(0, 108), yticks=range(0, 101, 20))
    axis.margins(x=0.07)  # room for what is written above the last point
    whole_epochs(axis)
    axis.grid(alpha=0.3)
    figure.legend(fontsize=8, ncols=4, loc="outside upper center")
    figure.savefig(path, dpi=DOTS_PER_INCH)


def class_bars(path: Path, rows: Sequence[dict[str, Any]], overall: float) -> None:
    """Draws the mR of the rows of `recalls_of_classes`, the best on top, and the overall mR."""
    rows = sorted(rows, key=lambda row: row["mR"])
    places, values = range(len(rows)), [row["mR"] for row in rows]
    figure = Figure(figsize=(8, max(2.5, 1.2 + 0.22 * len(rows))), layout="constrained")
    axis = figure.subplots()
    colours = [MISS if row["class"] == NO_CLASS else BAR for row in rows]
    bars = axis.barh(places, values, color=colours, height=0.75)
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # hides the line behind it
    axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=8, bbox=paper)
    labels = [f"{row['class']} ({row['images']})" for row in rows]
    axis.set_yticks(places, labels, fontsize=8, parse_math=False)  # a name may have a $
    axis.axvline(overall, color="black", linestyle="--", linewidth=1, label=f"all: {overall:.1f}")
    axis.set(
        xlabel="test mR (%)",
        ylabel="scene class (images)",
        xlim=(0, 108),
        xticks=range(0, 101, 20),
        ylim=(-0.7, len(rows) - 0.3),
    )
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    figure.legend(loc="outside upper right", fontsize=8)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def contact_sheet(path: Path, picture: Picture, retrieved: Sequence[Retrieved]) -> None:
    """Draws captions with the images that they retrieve; those that match are framed."""
    rows = len(retrieved)
    figure = Figure(figsize=(11, 1.75 * rows), layout="constrained")
    axes = figure.subplots(rows, TOP + 1, squeeze=False, width_ratios=[1.4] + [1] * TOP)
    for axis in axes.flat:
        axis.axis("off")
    for row, found in zip(axes, retrieved, strict=True):
        write_caption(row[0], found.caption, f"match at rank {tables.rank(found.rank)}")
        draw_images(row[1:], picture, found)
    figure.suptitle("captions and the five images they retrieve; matches are framed in green")
    figure.savefig(path, dpi=DOTS_PER_INCH)


def write_caption(axis: Axes, caption: str, note: str) -> None:
    """Writes a caption, shortened to five lines, and a note under it."""
    axis.set(xlim=(0, 1), ylim=(0, 1))
    words = "\n".join(textwrap.wrap(caption, 28, max_lines=5, placeholder=" …"))
    axis.text(0, 0.98, words, fontsize=9, va="top", parse_math=False)
    axis.text(0, 0.02, note, fontsize=8, weight="bold", parse_math=False)


def draw_images(axes: Sequence[Axes], picture: Picture, found: Retrieved) -> None:
    """Draws what a caption retrieves, with places and scores; a match has a broad green frame."""
    shown = zip(axes, found.images, found.scores, found.relevant, strict=False)
    for place, (axis, image, score, relevant) in enumerate(shown, 1):
        axis.axis("on")
        axis.imshow(picture(image))
        axis.set_title(f"{place}: {score:.3f}", fontsize=8)
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set(color=HIT if relevant else MISS, linewidth=5 if relevant else 1)
