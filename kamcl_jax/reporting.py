"""The report of a run: a table in the terminal, metrics.json, pictures and report.md."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from kamcl_jax import config_check, figures
from kamcl_jax.from_config import Experiment
from kamcl_jax.history import History

QUERIES_SHOWN = 8
COLUMNS = ("R@1", "R@5", "R@10", "median rank", "mean rank")
WAYS = {"i2t": "image to text", "t2i": "text to image"}
TIES = {
    "expected": "ties count by their expected rank",
    "argsort": "ties stand as NumPy's sort leaves them, as in the KAMCL release",
}
CURVES = """
## Curves

![losses](losses.png)

![validation recalls](recalls.png)
"""


def write(
    folder: Path,
    experiment: Experiment,
    history: History,
    results: dict[str, Any],
    similarity: np.ndarray,
) -> None:
    """Writes the report.

    Args:
      folder: made if absent; files in it are replaced.
      experiment: what was trained.
      history: of the training.
      results: as `training.train` returns them.
      similarity: f32[N, M] of the test split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(results, indent=2) + "\n")
    settings, test = experiment.settings, experiment.data.test
    if history.validation:
        figures.loss_curves(
            folder / "losses.png",
            history.train,
            settings.steps_per_epoch,
            settings.alignment_from_epoch,
        )
        figures.recall_curves(folder / "recalls.png", history.validation, results["chance"]["mR"])
    queries = queries_to_show(len(test.captions), experiment.config.seed)
    figures.contact_sheet(folder / "retrieved.png", test, similarity, queries)
    (folder / "report.md").write_text(markdown(experiment, history, results))


def queries_to_show(num_captions: int, seed: int) -> list[int]:
    """Returns captions for the contact sheet, drawn at random once a seed: not the best ones."""
    generator = np.random.Generator(np.random.PCG64([seed, num_captions]))
    count = min(QUERIES_SHOWN, num_captions)
    return sorted(generator.choice(num_captions, count, replace=False).tolist())


def table(results: dict[str, Any]) -> str:
    """Returns the results as a table, in Markdown that also reads well in a terminal."""
    head = ["split", "direction", *COLUMNS, "mR"]
    rows = []
    for split, name in (("test", "test"), ("val", "validation"), ("chance", "test by chance")):
        if results[split] is None:
            continue
        for way, words in WAYS.items():
            rows.append([name, words, *_cells(results[split], way), f"{results[split]['mR']:.2f}"])
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [_line(head, widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
    return "\n".join(lines + [_line(row, widths) for row in rows])


def _cells(metrics: dict[str, float], way: str) -> list[str]:
    recalls = [f"{metrics[f'{way}_r{k}']:.2f}" for k in (1, 5, 10)]
    ranks = [metrics.get(f"{way}_{name}") for name in ("medr", "meanr")]
    return recalls + ["-" if rank is None else f"{rank:.1f}" for rank in ranks]


def _line(cells: list[str], widths: list[int]) -> str:
    padded = [
        cell.ljust(width) if place < 2 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"


def markdown(experiment: Experiment, history: History, results: dict[str, Any]) -> str:
    """Returns the text of report.md."""
    config, data = experiment.config, experiment.data
    ratio = results["test"]["mR"] / results["chance"]["mR"]
    epochs = max([results["best_epoch"], *(row["epoch"] for row in history.validation)])
    from_epoch = config.schedule.alignment_from_epoch
    step_two = f"epoch {from_epoch + 1}" if from_epoch < epochs else "not reached"
    fields = "\n".join(
        f"| `{name}` | `{value!r}` |" for name, value in config_check.flatten(config).items()
    )
    return f"""# KAMCL on `{config.data.name}`

{_origin(results)} Recalls in percent; {TIES[config.evaluation.ties]};
the rank of an image is that of the best of its captions.

{table(results)}

The test mR is {ratio:.1f} times chance.

| | |
|---|---|
| images: train / validation / test | {_counts(data, "images")} |
| captions: train / validation / test | {_counts(data, "captions")} |
| words, concepts | {len(data.vocabulary)}, {len(data.concepts.words)} |
| steps an epoch, batch | {experiment.settings.steps_per_epoch}, {config.batch_size} |
| step 2 of the schedule (concept alignment) from | {step_two} |
| training and validation took | {history.seconds:.0f} s |
{CURVES if history.validation else ""}
## Queries

Captions of the test split drawn at random.

![captions and the images they retrieve](retrieved.png)

## Config

| field | value |
|---|---|
{fields}
"""


def _origin(results: dict[str, Any]) -> str:
    if results["val"] is None:
        return f"Scores of weights from another program, after step {results['best_step']}."
    return (
        "Scores of the checkpoint with the best validation mR "
        f"(after epoch {results['best_epoch']:.3g}) on\nsplits that it was not trained on."
    )


def _counts(data: Any, field: str) -> str:
    return " / ".join(
        str(len(getattr(split, field))) for split in (data.train, data.validation, data.test)
    )
