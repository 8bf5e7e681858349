"""The pictures of a report: curves of training, scene classes, queries and what they retrieve."""

import dataclasses
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from input_pipeline.splits.examples import Examples
from kamcl_jax.ranking.scene_classes import NO_CLASS

HIT = "#1a9850"
MISS = "#bbbbbb"
BAR = "#4575b4"
TOP = 5
DOTS_PER_INCH = 110


@dataclasses.dataclass(frozen=True)
class Retrieved:
    """What a caption retrieves.

    Attributes:
      caption: row of the caption.
      images: rows of the images that it retrieves, the best first.
      scores: of these images.
      rank: of the image that it describes, 1 = first; the expected rank where scores tie.
    """

    caption: int
    images: Sequence[int]
    scores: Sequence[float]
    rank: float


def loss_curves(
    path: Path,
    rows: Sequence[dict[str, float]],
    steps_per_epoch: int,
    alignment_from_epoch: int,
    extra_terms: Sequence[str] = (),
) -> None:
    """Draws the losses over epochs, with the border between the schedule's two steps.

    Args:
      path: of the PNG.
      rows: `History.train`.
      steps_per_epoch: turns steps into epochs.
      alignment_from_epoch: first epoch of step 2, from 0.
      extra_terms: names of the terms that the config adds to the paper's.
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
            bottom = {"transform": axis.get_xaxis_transform(), "va": "bottom"}
            axis.text(alignment_from_epoch, 0, " step 2 begins", fontsize=8, **bottom)
    for axis in axes.flat[len(terms) - 2 : len(terms)]:  # the lowest of each column
        axis.set_xlabel("epoch")
        axis.tick_params(labelbottom=True)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def recall_curves(path: Path, rows: Sequence[dict[str, float]], chance: float) -> None:
    """Draws the validation recalls over epochs.

    Args:
      path: of the PNG.
      rows: `History.validation`.
      chance: mR of random scores, in percent.
    """
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for way, style in (("i2t", "-"), ("t2i", "--")):
        for k, colour in ((1, "#d73027"), (5, "#fc8d59"), (10, "#4575b4")):
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
    )
    axis.axhline(chance, color="grey", linestyle=":", label="mR by chance")
    axis.set(xlabel="epoch", ylabel="validation recall (%)", ylim=(0, 100))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, ncols=4, loc="upper left")
    figure.savefig(path, dpi=DOTS_PER_INCH)


def class_bars(path: Path, rows: Sequence[dict[str, Any]], overall: float) -> None:
    """Draws the mR of each scene class, the best on top.

    Args:
      path: of the PNG.
      rows: as `scene_classes.breakdown` returns them.
      overall: mR of the whole split, in percent.
    """
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


def contact_sheet(path: Path, examples: Examples, retrieved: Sequence[Retrieved]) -> None:
    """Draws captions with the images that they retrieve; hits are framed.

    Args:
      path: of the PNG.
      examples: the split.
      retrieved: for each caption to show, up to `TOP` images.
    """
    rows = len(retrieved)
    figure = Figure(figsize=(11, 1.75 * rows), layout="constrained")
    axes = figure.subplots(rows, TOP + 1, squeeze=False, width_ratios=[1.4] + [1] * TOP)
    for row, found in zip(axes, retrieved, strict=True):
        _write_caption(row[0], examples.captions[found.caption])
        match = examples.image_of_caption[found.caption]
        row[0].text(0, 0.02, f"match at rank {found.rank:.10g}", fontsize=8, color="grey")
        for axis in row[1 + len(found.images) :]:
            axis.axis("off")
        for place, (image, score) in enumerate(zip(found.images, found.scores, strict=True), 1):
            axis = row[place]
            axis.imshow(examples.images[image])
            axis.set_title(f"{place}: {score:.3f}", fontsize=8)
            frame(axis, hit=image == match)
    figure.suptitle("captions and the five images they retrieve; the match is framed in green")
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _write_caption(axis, caption: str) -> None:
    axis.axis("off")
    words = textwrap.fill(caption, 28)
    axis.text(0, 0.95, words, fontsize=9, va="top", wrap=False, parse_math=False)
    axis.set(xlim=(0, 1), ylim=(0, 1))


def frame(axis: Axes, hit: bool) -> None:
    """Draws a frame, green and broad for a hit, around the picture in an axis."""
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color=HIT if hit else MISS, linewidth=5 if hit else 1)
