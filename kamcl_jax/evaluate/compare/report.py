"""A comparison's report.md and its pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kamcl_jax.evaluate import tables
from kamcl_jax.evaluate.compare.runs import ComparedRun, RankedQueries, differing_fields
from kamcl_jax.evaluate.figures import (
    DOTS_PER_INCH,
    TOP,
    Picture,
    Retrieved,
    draw_images,
    whole_epochs,
    write_caption,
)
from kamcl_jax.ranking.metrics import (
    RECALL_AT,
    RECALLS_AND_MEAN,
    RESAMPLES,
    bootstrap_differences,
    recalls,
)
from kamcl_jax.ranking.ranks import WAYS

FILES = REPORT, RECALLS, CURVES, SHEET = "report.md", "recalls.png", "curves.png", "queries.png"
HEAD = [f"{way} R@{k}" for way in WAYS for k in RECALL_AT] + ["mR"]
LONGEST_TEXT = 120
PROTOCOLS = {"test": "", "test_equal_texts": ", equal texts count"}
"""What metrics.json calls a protocol -> what is added to a run's name in a table."""

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7"),
    *("#56b4e9", "#e69f00", "#000000", "#999999"),
)
"""The colours of the runs, which colour-blind eyes tell apart, too (after Okabe and Ito)."""

BACKGROUNDS = ("#ffffff", "#f1f1f1")  # of one caption and the next

LOSSES = ("loss", "triplet", "contrastive")

Chosen = Mapping[str, tuple[Sequence[int], Sequence[int]]]
"""Direction -> queries where the first run is ahead, and where it is behind."""

TITLE = "# Comparison of KAMCL runs"
DOCUMENT = f"""{TITLE}

{{overview}}

## Test recalls

In percent, of each run's report, with 95 % intervals from {RESAMPLES} resamples of the
test images with their captions. They say how much a score hangs on which images were tested, not
how much another seed would change it. Where equal texts count, an image and a caption match if the
image has a caption of that text.

{{recalls}}

![recalls]({RECALLS})

## Differences

{{differences}}

## Config fields that differ

{{fields}}
"""
DIFFERENCES = """\
Test recalls of a run less those of the first, in percent points, with *paired* 95 % intervals:
both runs are scored on the same resamples of the test images. An interval without 0 says that the
difference is not a matter of which images were tested; another seed may still turn it around.

{differences}

How many queries a run ranks better, alike and worse than the first run does, by the expected rank
where scores tie:

{counts}"""
CURVES_TEXT = f"""
## Curves

![losses and validation mR]({CURVES})
"""
QUERIES = """
## Queries where the runs differ most

Ranks of the best match, 1 = first, where equal texts count; where scores tie, the expected rank.
Listed are the queries where the rank of {first} is ahead of that of another run by the largest
factor, and those where it is behind.

{tables}
"""
SHEET_TEXT = f"""
What the first captions of both lists retrieve, by {{first}} and by the run that differs most from
it:

![captions and what they retrieve]({SHEET})
"""
LISTS = {
    "t2i": "Captions that look for their image, {first} is {place}:",
    "i2t": "Images that look for one of their captions, {first} is {place}:",
}


def document(
    runs: Sequence[ComparedRun], ranked: Sequence[RankedQueries], chosen: Chosen, why_not: str
) -> str:
    """Returns the text of report.md; nothing is `ranked` if queries cannot be compared."""
    text = DOCUMENT.format(
        overview=overview(runs),
        recalls=recall_table(runs),
        differences=_differences(ranked) if ranked else f"Queries are not compared: {why_not}.",
        fields=_fields(runs),
    )
    if any(run.finished.history.train for run in runs):
        text += CURVES_TEXT
    return text + _queries(ranked, chosen) if ranked else text


def overview(runs: Sequence[ComparedRun]) -> str:
    """Returns which runs there are, and notes on those whose report is not of their checkpoint."""
    rows = [
        [
            _text(run.label),
            _text(str(run.finished.folder)),
            run.finished.config.data.name,
            f"{run.results['best_epoch']:.3g}",
            f"{run.results['chance']['mR']:.2f}",
        ]
        for run in runs
    ]
    head = ("run", "folder", "data", "best epoch", "mR by chance")
    notes = [
        f"\n\nThe report of {_text(run.label)} is of step {run.results['best_step']}, but its best "
        f"checkpoint is of step {run.finished.step}: `--mode=evaluate` writes it anew."
        for run in runs
        if run.finished.results_of_step is None
    ]
    return tables.markdown_table(head, rows, left=3) + "".join(notes)


def recall_table(runs: Sequence[ComparedRun]) -> str:
    """Returns the test recalls of all runs with their intervals, by both protocols."""
    rows = []
    for protocol, words in PROTOCOLS.items():
        for run in runs:
            found, bounds = run.results[protocol], run.results["intervals"][protocol]
            cells = [f"{found[n]:.2f} ({tables.interval(bounds[n])})" for n in RECALLS_AND_MEAN]
            rows.append([_text(run.label) + words, *cells])
    return tables.markdown_table(["run", *HEAD], rows)


def difference_rows(ranked: Sequence[RankedQueries]) -> list[list[str]]:
    """Returns how much better each run is than the first, by both protocols.

    A row has the runs' names and the differences of `RECALLS_AND_MEAN` with paired intervals.
    """
    first, *others = ranked
    rows = []
    for other in others:
        for protocol, words in PROTOCOLS.items():
            paired = other.ranks[protocol], first.ranks[protocol]
            bounds = bootstrap_differences(paired[:1], paired[1:], first.examples.image_of_caption)
            found, of_first = map(recalls, paired)
            cells = [
                f"{found[name] - of_first[name]:+.2f} ({tables.interval(bounds[name])})"
                for name in RECALLS_AND_MEAN
            ]
            rows.append([_text(f"{other.label} less {first.label}") + words, *cells])
    return rows


def difference_lines(ranked: Sequence[RankedQueries]) -> str:
    """Returns what the terminal shows of the differences: those of mR."""
    return "\n".join(f"{names}: mR {cells[-1]}" for names, *cells in difference_rows(ranked))


def _fields(runs: Sequence[ComparedRun]) -> str:
    differing = differing_fields(runs)
    if not differing:
        return "None: the configs are the same."
    rows = [
        [f"`{name}`", *(_text(value) for value in values)] for name, values in differing.items()
    ]
    head = ["field", *(_text(run.label) for run in runs)]
    return tables.markdown_table(head, rows, left=len(head))


def _differences(ranked: Sequence[RankedQueries]) -> str:
    first, *others = ranked
    counts = []
    for other in others:
        for way, words in tables.WAYS.items():
            before, after = (run.ranks["test"][way].expected() for run in (first, other))
            change = np.sign(before - after)
            numbers = [str(np.count_nonzero(change == sign)) for sign in (1, 0, -1)]
            counts.append([_text(f"{other.label} against {first.label}"), words, *numbers])
    head = ("runs", "direction", "better rank", "same rank", "worse rank")
    return DIFFERENCES.format(
        differences=tables.markdown_table(["difference", *HEAD], difference_rows(ranked)),
        counts=tables.markdown_table(head, counts, left=2),
    )


def _queries(ranked: Sequence[RankedQueries], chosen: Chosen) -> str:
    examples, first = ranked[0].examples, _text(ranked[0].label)
    texts = {"t2i": examples.captions, "i2t": examples.file_names}
    parts = []
    for way, head in LISTS.items():
        for place, queries in zip(("ahead", "behind"), chosen[way], strict=True):
            parts.append(head.format(first=first, place=place))
            parts.append(_rank_table(ranked, way, texts[way], queries) if queries else "none.")
    listed = QUERIES.format(first=first, tables="\n\n".join(parts))
    return listed + SHEET_TEXT.format(first=first) if any(chosen["t2i"]) else listed


def _rank_table(
    ranked: Sequence[RankedQueries], way: str, texts: Sequence[str], queries: Sequence[int]
) -> str:
    ranks = [run.expected_ranks(way) for run in ranked]
    rows = [
        [_text(texts[query]), *(tables.rank(of_run[query]) for of_run in ranks)]
        for query in queries
    ]
    what = {"t2i": "caption", "i2t": "image"}
    return tables.markdown_table([what[way], *(_text(run.label) for run in ranked)], rows)


def _text(words: str) -> str:
    """Returns words as a cell of a table: one line, not too long, nothing in them is markup."""
    line = " ".join(words.split())
    if len(line) > LONGEST_TEXT:
        line = f"{line[: LONGEST_TEXT - 2]} …"
    for special in "\\|`*[<":
        line = line.replace(special, f"\\{special}")
    return line


def draw_recalls(path: Path, runs: Sequence[ComparedRun]) -> None:
    """Draws the test recalls of all runs with their 95 % intervals."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    axis = figure.subplots()
    places, width = np.arange(len(HEAD)), 0.8 / len(runs)
    for index, (run, colour) in enumerate(zip(runs, COLOURS, strict=False)):
        test, bounds = run.results["test"], run.results["intervals"]["test"]
        values = np.array([test[name] for name in RECALLS_AND_MEAN])
        low, high = np.array([bounds[name] for name in RECALLS_AND_MEAN]).T
        axis.bar(
            places + (index - (len(runs) - 1) / 2) * width,
            values,
            width,
            color=colour,
            label=run.label,
            yerr=np.maximum([values - low, high - values], 0),
            error_kw={"elinewidth": 1.2, "capsize": 2, "ecolor": "#444444"},
        )
    axis.set_xticks(places, HEAD)
    axis.set(ylabel="test recall (%), 95 % interval", ylim=(0, 105), yticks=range(0, 101, 20))
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    _legend(figure, axis)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def draw_curves(path: Path, runs: Sequence[ComparedRun]) -> None:
    """Draws losses and validation mR over epochs, the runs over each other."""
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    for axis, term in zip(axes.flat, (*LOSSES, "mR"), strict=True):
        for run, colour in zip(runs, COLOURS, strict=False):
            history, validation = run.finished.history, term == "mR"
            rows = history.validation if validation else history.train
            epochs, values = [row["epoch"] for row in rows], [row[term] for row in rows]
            marker = "o" if validation else None
            axis.plot(
                epochs, values, color=colour, label=run.label, linewidth=1.4, marker=marker, ms=3.5
            )
        title = {"loss": "weighted sum of the losses", "mR": "validation mR (%)"}
        axis.set_title(title.get(term, f"{term} loss (unweighted)"), fontsize=10)
        axis.grid(alpha=0.3)
    axes[1, 1].set_ylim(bottom=0)  # a model that is far from 100 is to be seen, too
    for axis in axes[1]:
        whole_epochs(axis)
    _legend(figure, axes[0, 0])
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a folder's name may have a $


def draw_queries(
    path: Path, picture: Picture, queries: Sequence[Sequence[tuple[str, Retrieved]]]
) -> None:
    """Draws, for each caption, the runs' labels and what it retrieves there; matches are framed."""
    rows = max(map(len, queries))
    figure = Figure(figsize=(11.5, 0.5 + 1.7 * rows * len(queries)), layout="constrained")
    figure.suptitle("captions that the runs rank most differently; matches are framed in green")
    parts = figure.subfigures(len(queries), squeeze=False).flat
    for index, (part, query) in enumerate(zip(parts, queries, strict=True)):
        part.set_facecolor(BACKGROUNDS[index % len(BACKGROUNDS)])
        axes = part.subplots(rows, TOP + 1, squeeze=False, width_ratios=[1.7] + [1] * TOP)
        for axis in axes.flat:
            axis.axis("off")
        for place, (row, (label, found)) in enumerate(zip(axes, query, strict=True)):
            caption = found.caption if place == 0 else ""
            write_caption(row[0], caption, f"{label}: rank {tables.rank(found.rank)}")
            draw_images(row[1:], picture, found)
    figure.savefig(path, dpi=DOTS_PER_INCH)
