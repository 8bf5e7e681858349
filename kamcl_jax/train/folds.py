"""`--mode=folds`: the paper's protocol, with a training for each random validation split.

For each fold the training images are split 80/20 at random, and the checkpoint of the best
validation is scored on the test split; the folds are averaged (Ji et al. 2023, experiments).
"""

import json
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from kamcl_jax.config import data, fields
from kamcl_jax.errors import ConfigError
from kamcl_jax.evaluate.tables import markdown_table
from kamcl_jax.parallel import hosts
from kamcl_jax.ranking.metrics import RECALLS_AND_MEAN
from kamcl_jax.runs import folder
from kamcl_jax.train import loop

HEAD = ("fold", "i2t R@1", "R@5", "R@10", "t2i R@1", "R@5", "R@10", "mR", "best epoch")


def train_folds(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains `config.num_folds` folds into `workdir/fold_0`, `fold_1`, ... and averages them.

    The same command again goes on where it was interrupted; finished folds are not trained again.

    Returns:
      The contents of `workdir/report/folds.json`: `folds`, the test metrics of each fold, and
      `mean` and `std` of each metric over the folds (with n - 1; zeros for one fold).
    """
    folder.check_writable(workdir)
    fields.check_fields(config)
    prepared = data.open_data(config)
    if "validation" in prepared.sizes and config.data.validation != "random":
        raise ConfigError(
            f"--mode=folds draws validation splits, but config.data.validation is "
            f"{config.data.validation!r} and '{config.data.name}' has a published one; set it to "
            "'random'"
        )
    runs = []
    for fold in range(config.num_folds):
        hosts.say(f"fold {fold + 1} of {config.num_folds}")
        of_fold = config.copy_and_resolve_references()
        of_fold.fold = fold
        runs.append(loop.train(of_fold, workdir / f"fold_{fold}"))
    results = aggregate(runs)
    report, text = workdir / "report", table(results)
    if hosts.is_first():
        report.mkdir(parents=True, exist_ok=True)
        (report / "folds.json").write_text(json.dumps(results, indent=2) + "\n")
        (report / "folds.md").write_text(
            f"# KAMCL on `{config.data.name}`: {config.num_folds} folds\n\nTest recalls in percent "
            f"of each fold's checkpoint with the best validation mR.\n\n{text}\n"
        )
    hosts.say(text)
    hosts.say(f"report: {report / 'folds.md'}")
    return results


def aggregate(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Averages the test metrics of runs, given by their `metrics.json`, as `train_folds` says."""
    folds = [{**run["test"], "best_epoch": run["best_epoch"]} for run in runs]
    # A fold whose concepts cannot be scored, as of a tiny test split, says nothing of them.
    everywhere = [name for name in folds[0] if all(name in fold for fold in folds)]
    values = {name: np.array([fold[name] for fold in folds]) for name in everywhere}
    free = min(1, len(folds) - 1)
    return {
        "folds": folds,
        "mean": {name: float(of_folds.mean()) for name, of_folds in values.items()},
        "std": {name: float(of_folds.std(ddof=free)) for name, of_folds in values.items()},
    }


def table(results: dict[str, Any]) -> str:
    """Returns the folds and their mean and standard deviation as a Markdown table."""

    def row(name: str, scores: dict[str, float], epoch: str) -> list[str]:
        return [name, *(f"{scores[metric]:.2f}" for metric in RECALLS_AND_MEAN), epoch]

    rows = [
        row(str(fold), scores, f"{scores['best_epoch']:g}")
        for fold, scores in enumerate(results["folds"])
    ]
    for name in ("mean", "std"):
        rows.append(row(name, results[name], f"{results[name]['best_epoch']:.3g}"))
    return markdown_table(HEAD, rows)
