"""The results of a run as tables, for report.md and for the terminal."""

from typing import Any

from kamcl_jax.evaluate import markdown
from kamcl_jax.ranking.metrics import RECALL_AT

WAYS = {"i2t": "image to text", "t2i": "text to image"}
SPLITS = {
    "test": "test",
    "test_equal_texts": "test, equal texts count",
    "val": "validation",
    "chance": "test by chance",
}
RECALL_COLUMNS = tuple(f"R@{k}" for k in RECALL_AT)


def scores(results: dict[str, Any]) -> str:
    """Returns the recalls, ranks and mR of all splits.

    Args:
      results: as `training.train` returns them.
    """
    head = ("split", "direction", *RECALL_COLUMNS, "median rank", "mean rank", "mR")
    rows = [
        [name, words, *_score_cells(results[split], way)]
        for split, name in SPLITS.items()
        if results[split] is not None
        for way, words in WAYS.items()
    ]
    return markdown.table(head, rows, left=2)


def _score_cells(metrics: dict[str, float], way: str) -> list[str]:
    ranks = [metrics.get(f"{way}_{name}") for name in ("medr", "meanr")]
    return [
        *(f"{metrics[f'{way}_r{k}']:.2f}" for k in RECALL_AT),
        *("-" if rank is None else f"{rank:.1f}" for rank in ranks),
        f"{metrics['mR']:.2f}",
    ]


def intervals(results: dict[str, Any]) -> str:
    """Returns the 95 % intervals of the test recalls.

    Args:
      results: as `training.train` returns them.
    """
    rows = []
    for split, bounds in results["intervals"].items():
        for way, words in WAYS.items():
            cells = [_interval(bounds[name]) for name in (*_recalls(way), "mR")]
            rows.append([SPLITS[split], words, *cells])
    return markdown.table(("split", "direction", *RECALL_COLUMNS, "mR"), rows, left=2)


def _interval(bounds: list[float]) -> str:
    low, high = bounds
    return f"{low:.1f} to {high:.1f}"


def _recalls(way: str) -> list[str]:
    return [f"{way}_r{k}" for k in RECALL_AT]


def classes(rows: list[dict[str, Any]]) -> str:
    """Returns the recalls of the scene classes.

    Args:
      rows: as `scene_classes.breakdown` returns them.
    """
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
    return markdown.table([*head, "mR"], cells)


def summary(results: dict[str, Any]) -> str:
    """Returns what the terminal shows: the scores, and how sure the test mR is.

    Args:
      results: as `training.train` returns them.
    """
    lines = [
        f"{SPLITS[split]}: mR {results[split]['mR']:.2f} "
        f"(95 % interval over images: {_interval(bounds['mR'])})"
        for split, bounds in results["intervals"].items()
    ]
    return "\n".join([scores(results), *lines])
