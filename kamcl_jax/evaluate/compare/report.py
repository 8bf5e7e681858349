"""The text of a comparison's report.md."""

from collections.abc import Mapping, Sequence

import numpy as np

from kamcl_jax.evaluate import markdown, tables
from kamcl_jax.evaluate.compare.queries import RankedQueries
from kamcl_jax.evaluate.compare.runs import ComparedRun, differing_fields
from kamcl_jax.ranking import bootstrap, metrics
from kamcl_jax.ranking import ranks as ranking

FILES = REPORT, RECALLS, CURVES, SHEET = "report.md", "recalls.png", "curves.png", "queries.png"
METRICS = (*metrics.RECALLS, "mR")
HEAD = [f"{way} R@{k}" for way in ranking.WAYS for k in metrics.RECALL_AT] + ["mR"]
LONGEST_TEXT = 120

Chosen = Mapping[str, tuple[Sequence[int], Sequence[int]]]
"""Direction -> queries where the first run is ahead, and where it is behind."""

TITLE = "# Comparison of KAMCL runs"
DOCUMENT = f"""{TITLE}

{{overview}}

## Test recalls

In percent, of each run's report, with 95 % intervals from {bootstrap.RESAMPLES} resamples of the
test images with their captions. They say how much a score hangs on which images were tested, not
how much another seed would change it.

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

Ranks of the right answer, 1 = first; where scores tie, the expected rank. Listed are the queries
where the rank of {first} is ahead of that of another run by the largest factor, and those where it
is behind.

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
    """Returns the text of report.md.

    Args:
      runs: two or more.
      ranked: the same queries, by each run; empty if they cannot be compared.
      chosen: the queries where the runs differ most.
      why_not: the queries cannot be compared.
    """
    text = DOCUMENT.format(
        overview=overview(runs),
        recalls=recalls(runs),
        differences=_differences(ranked) if ranked else f"Queries are not compared: {why_not}.",
        fields=fields(runs),
    )
    if any(run.stored.history.train for run in runs):
        text += CURVES_TEXT
    return text + _queries(ranked, chosen) if ranked else text


def overview(runs: Sequence[ComparedRun]) -> str:
    """Returns which runs there are, and notes on those whose report is not of their checkpoint."""
    rows = [
        [
            _text(run.label),
            _text(str(run.stored.folder)),
            run.stored.config.data.name,
            f"{run.results['best_epoch']:.3g}",
            f"{run.results['chance']['mR']:.2f}",
        ]
        for run in runs
    ]
    head = ("run", "folder", "data", "best epoch", "mR by chance")
    notes = [
        f"\n\nThe report of {_text(run.label)} is of step {run.results['best_step']}, but its best "
        f"checkpoint is of step {run.stored.step}: `--mode=evaluate` writes it anew."
        for run in runs
        if run.stored.results_of_step is None
    ]
    return markdown.table(head, rows, left=3) + "".join(notes)


def recalls(runs: Sequence[ComparedRun]) -> str:
    """Returns the test recalls of all runs with their intervals."""
    rows = []
    for run in runs:
        test, bounds = run.results["test"], run.results["intervals"]["test"]
        cells = [f"{test[name]:.2f} ({_interval(bounds[name])})" for name in METRICS]
        rows.append([_text(run.label), *cells])
    return markdown.table(["run", *HEAD], rows)


def fields(runs: Sequence[ComparedRun]) -> str:
    """Returns the fields of the config that differ."""
    differing = differing_fields(runs)
    if not differing:
        return "None: the configs are the same."
    rows = [
        [f"`{name}`", *(_text(value) for value in values)] for name, values in differing.items()
    ]
    return markdown.table(["field", *(_text(run.label) for run in runs)], rows, left=1 + len(runs))


def _differences(ranked: Sequence[RankedQueries]) -> str:
    """Returns how much better each run is than the first, and for how many queries."""
    first, *others = ranked
    gains, counts = [], []
    for other in others:
        paired = (other.ranks, first.ranks)
        bounds = bootstrap.difference_intervals(*paired, first.examples.image_of_caption)
        found, of_first = map(metrics.recalls, paired)
        gains.append(
            [
                _text(f"{other.label} less {first.label}"),
                *(f"{found[n] - of_first[n]:+.2f} ({_interval(bounds[n])})" for n in METRICS),
            ]
        )
        for way, words in tables.WAYS.items():
            change = np.sign(first.ranks[way].expected() - other.ranks[way].expected())
            numbers = [str(np.count_nonzero(change == sign)) for sign in (1, 0, -1)]
            counts.append([_text(f"{other.label} against {first.label}"), words, *numbers])
    head = ("runs", "direction", "better rank", "same rank", "worse rank")
    return DIFFERENCES.format(
        differences=markdown.table(["difference", *HEAD], gains),
        counts=markdown.table(head, counts, left=2),
    )


def _queries(ranked: Sequence[RankedQueries], chosen: Chosen) -> str:
    """Returns the queries where the runs differ most."""
    examples, first = ranked[0].examples, _text(ranked[0].label)
    texts = {"t2i": examples.captions, "i2t": examples.file_names}
    parts = []
    for way, head in LISTS.items():
        for place, rows in zip(("ahead", "behind"), chosen[way], strict=True):
            parts.append(head.format(first=first, place=place))
            parts.append(_ranks(ranked, way, texts[way], rows) if rows else "none.")
    listed = QUERIES.format(first=first, tables="\n\n".join(parts))
    return listed + SHEET_TEXT.format(first=first) if any(chosen["t2i"]) else listed


def _ranks(
    ranked: Sequence[RankedQueries], way: str, texts: Sequence[str], rows: Sequence[int]
) -> str:
    ranks = [run.ranks[way].expected() for run in ranked]
    cells = [[_text(texts[row]), *(f"{rank[row]:.10g}" for rank in ranks)] for row in rows]
    what = {"t2i": "caption", "i2t": "image"}
    return markdown.table([what[way], *(_text(run.label) for run in ranked)], cells)


def _interval(bounds: Sequence[float]) -> str:
    low, high = bounds
    return f"{low:.1f} to {high:.1f}"


def _text(words: str) -> str:
    """Returns words as a cell of a table: one line, not too long, nothing in them is markup."""
    line = " ".join(words.split())
    if len(line) > LONGEST_TEXT:
        line = f"{line[: LONGEST_TEXT - 2]} …"
    for special in "\\|`*[<":
        line = line.replace(special, f"\\{special}")
    return line
