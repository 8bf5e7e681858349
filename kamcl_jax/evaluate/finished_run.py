"""A finished run, read again: its config, history, report, model and data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import ml_collections

from input_pipeline.splits.examples import RetrievalData
from input_pipeline.splits.loading import load_prepared
from kamcl_jax.config import build, data, fields
from kamcl_jax.errors import ConfigError
from kamcl_jax.inference.model import TrainedModel, open_trained
from kamcl_jax.runs import record as run_record
from kamcl_jax.runs.checkpoints import Record, first_readable, open_checkpoints
from kamcl_jax.runs.folder import written_tokenizer
from kamcl_jax.runs.record import History

METRICS = Path("report", "metrics.json")
SPLITS = ("train", "validation", "test")

_RESULTS = {"test", "test_equal_texts", "val", "chance", "intervals", "best_step", "best_epoch"}
"""What every whole report has; one of an older version may lack some of it."""


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What a run's folder tells without its data; it uses the best checkpoint, or the latest.

    The latest one takes the place of the best where none was validated.
    """

    folder: Path
    step: int  # of the checkpoint that is used
    config: ml_collections.ConfigDict  # of the training, for the devices here
    record: Record  # what that checkpoint carries beside the state
    history: History  # up to the latest checkpoint that can be read
    results: dict[str, Any] | None  # the contents of `report/metrics.json`; None without a report

    @property
    def results_of_step(self) -> dict[str, Any] | None:
        """The results, if they are of the checkpoint that is used."""
        if self.results is None or self.results["best_step"] != self.step:
            return None
        return self.results

    def model(self) -> TrainedModel:
        """Opens the checkpoint that is used."""
        return open_trained(self.folder, self.step)


def read(workdir: Path) -> FinishedRun:
    """Reads a run."""
    with open_checkpoints(workdir) as checkpoints:
        step = checkpoints.best_or_latest
        record = checkpoints.record(step)
        newest = first_readable(reversed(checkpoints.steps), checkpoints.record)
    history = run_record.history_of(newest)
    config = build.on_these_devices(run_record.config_of(record))
    return FinishedRun(workdir, step, config, record, history, _results(workdir / METRICS))


def open_data(
    run: FinishedRun,
    config: ml_collections.ConfigDict | None = None,
    *,
    train_as_tested: bool = False,
) -> RetrievalData:
    """Opens the data that a run was trained on.

    Args:
      run: The run.
      config: The run's config where its data lie elsewhere by now; if None, the checkpoint's.
      train_as_tested: Whether to decode the training images at the size of the others, instead of
        larger, to be cropped.
    """
    config = run.config if config is None else config
    fields.check_against_checkpoint(config, run.record["config"])  # before data are prepared
    experiment = build.build(config, trains=False, written=written_tokenizer(run.folder))
    run_record.check_same_run(experiment, run.record)
    if not train_as_tested:
        return experiment.data
    settings = data.settings(config)
    settings = dataclasses.replace(settings, train_size=config.image_size)
    tokenizer = experiment.data.tokenizer
    return load_prepared(data.open_data(config), settings, data.read_threads(config), tokenizer)


def _results(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        results = json.loads(path.read_text("utf-8"))
    except ValueError:  # it is cut short
        results = {}
    if not _RESULTS.issubset(results):
        raise ConfigError(f"{path} is no whole report; --mode=evaluate writes it anew")
    return results
