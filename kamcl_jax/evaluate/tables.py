"""Tables of results, for report.md and for the terminal."""

from collections.abc import Sequence
from typing import Any

from kamcl_jax.ranking.metrics import RECALL_AT

WAYS = {"i2t": "image to text", "t2i": "text to image"}
SPLITS = {
    "test": "test",
    "test_equal_texts": "test, equal texts count",
    "val": "validation",
    "chance": "test by chance",
}
SIDES = {"concept_map": "images", "concept_map_text": "captions"}
"""The mean average precision of the concepts of each side, as metrics.json names it."""

RECALL_COLUMNS = tuple(f"R@{k}" for k in RECALL_AT)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Returns a Markdown table with padded columns, so that it reads well in a terminal, too.

    The first `left` columns are aligned to the left; the others are numbers.
    """
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([_line(head, widths, left), rule, *(_line(row, widths, left) for row in rows)])


def _line(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = [
        cell.ljust(width) if place < left else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"


def interval(bounds: Sequence[float]) -> str:
    """Returns `low to high`."""
    low, high = bounds
    return f"{low:.1f} to {high:.1f}"


def rank(expected: float) -> str:
    """Returns an expected rank, which is whole but where scores tie."""
    return f"{expected:.1f}".removesuffix(".0")


def scores(results: dict[str, Any]) -> str:
    """Returns the recalls, ranks and mR of all splits in the contents of metrics.json."""
    head = ("split", "direction", *RECALL_COLUMNS, "median rank", "mean rank", "mR")
    rows = [
        [name, words, *_score_cells(results[split], way)]
        for split, name in SPLITS.items()
        if results[split] is not None
        for way, words in WAYS.items()
    ]
    return markdown_table(head, rows, left=2)


def _score_cells(metrics: dict[str, float], way: str) -> list[str]:
    ranks = [metrics.get(f"{way}_{name}") for name in ("medr", "meanr")]
    return [
        *(f"{metrics[name]:.2f}" for name in _recalls(way)),
        *("-" if rank is None else f"{rank:.1f}" for rank in ranks),
        f"{metrics['mR']:.2f}",
    ]


def intervals(results: dict[str, Any]) -> str:
    """Returns the 95 % intervals of the test recalls in the contents of metrics.json."""
    rows = [
        [SPLITS[split], words, *(interval(bounds[name]) for name in (*_recalls(way), "mR"))]
        for split, bounds in results["intervals"].items()
        for way, words in WAYS.items()
    ]
    return markdown_table(("split", "direction", *RECALL_COLUMNS, "mR"), rows, left=2)


def _recalls(way: str) -> list[str]:
    return [f"{way}_r{k}" for k in RECALL_AT]


def classes(rows: list[dict[str, Any]]) -> str:
    """Returns the recalls of the scene classes, from `metrics.recalls_of_classes`."""
    head = ["scene class", "images", "captions"]
    for way in WAYS:
        head += [f"{way} {RECALL_COLUMNS[0]}", *RECALL_COLUMNS[1:]]
    names = [name for way in WAYS for name in _recalls(way)]
    cells = [
        [
            row["class"].replace("|", "\\|"),
            str(row["images"]),
            str(row["captions"]),
            *(f"{row[name]:.1f}" for name in (*names, "mR")),
        ]
        for row in rows
    ]
    return markdown_table([*head, "mR"], cells)


def concepts(results: dict[str, Any]) -> str:
    """Returns how well concepts are known, from the contents of metrics.json.

    The result is '' where they do not say so, as those of an older version.
    """
    rows = [
        [
            SPLITS[split],
            side,
            *(f"{results[split][name]:.2f}" for name in (metric, f"{metric}_chance")),
            str(results[split]["concepts_scored"]),
        ]
        for split in ("test", "val")
        for metric, side in SIDES.items()
        if metric in (results[split] or {})
    ]
    head = ("split", "of", "mean average precision", "base rate", "concepts")
    return markdown_table(head, rows, left=2) if rows else ""


def known_concepts(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the average precision of some concepts, from `concept_metrics.known_concepts`."""
    cells = [
        [
            row["concept"],
            str(row["images"]),
            *(f"{row[name]:.1f}" for name in ("average_precision", "base_rate")),
        ]
        for row in rows
    ]
    return markdown_table(("concept", "test images", "average precision", "base rate"), cells)


def summary(results: dict[str, Any]) -> str:
    """Returns what the terminal shows: the scores, how certain they are, and of the concepts."""
    lines = [
        f"{SPLITS[split]}: mR {results[split]['mR']:.2f} "
        f"(95 % interval over images: {interval(bounds['mR'])})"
        for split, bounds in results["intervals"].items()
    ]
    test = results["test"]
    if "concept_map" in test:
        lines.append(
            "test: mean average precision of concepts "
            f"{test['concept_map']:.2f} of images (by chance {test['concept_map_chance']:.2f}), "
            f"{test['concept_map_text']:.2f} of captions"
        )
    return "\n".join([scores(results), *lines])
