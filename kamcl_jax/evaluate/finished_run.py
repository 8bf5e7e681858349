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
from kamcl_jax.evaluate import tables
from kamcl_jax.inference import model as trained_model
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.ranking.metrics import RECALLS
from kamcl_jax.runs import record as run_record
from kamcl_jax.runs.checkpoints import Record, first_readable, open_checkpoints
from kamcl_jax.runs.record import History

METRICS = Path("report", "metrics.json")
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """What a run's folder tells without its data.

    Attributes:
      folder: of the run.
      step: of the checkpoint that is used: the one with the best validation, or the latest if none
        was validated.
      config: of the training, for the devices here.
      record: of that checkpoint.
      history: of the training, up to the latest checkpoint that can be read.
      results: the contents of `report/metrics.json`; None without a report.
    """

    folder: Path
    step: int
    config: ml_collections.ConfigDict
    record: Record
    history: History
    results: dict[str, Any] | None

    @property
    def results_of_step(self) -> dict[str, Any] | None:
        """The results, if they are of the checkpoint that is used."""
        if self.results is None or self.results["best_step"] != self.step:
            return None
        return self.results

    def model(self) -> TrainedModel:
        """Opens the checkpoint that is used.

        Raises:
          CheckpointError: it cannot be read.
        """
        return trained_model.open_trained(self.folder, self.step)


def read(workdir: Path) -> StoredRun:
    """Reads a run.

    Raises:
      ConfigError: there is no checkpoint, or the report is damaged.
      CheckpointError: the checkpoint that is used cannot be read.
    """
    with open_checkpoints(workdir) as checkpoints:
        step = checkpoints.best_or_latest
        record = checkpoints.record(step)
        newest = first_readable(reversed(checkpoints.steps), checkpoints.record)
    history = run_record.history_of(newest)
    config = build.on_these_devices(run_record.config_of(record))
    return StoredRun(workdir, step, config, record, history, _results(workdir / METRICS))


def open_data(
    run: StoredRun,
    config: ml_collections.ConfigDict | None = None,
    *,
    train_as_tested: bool = False,
) -> RetrievalData:
    """Opens the data that a run was trained on.

    Args:
      run: that was trained.
      config: of the run, where its data lie elsewhere by now; the checkpoint's, if None.
      train_as_tested: gives the training images at the size of the others, not larger, to be
        cropped; they are decoded anew for it.

    Raises:
      ConfigError: the config is not the run's, or the captions are others than it was trained on.
      DataError: the data cannot be used.
    """
    config = run.config if config is None else config
    fields.check_against_checkpoint(config, run.record["config"])  # before data are prepared
    experiment = build.build(config, trains=False)
    run_record.check_same_run(experiment, run.record)
    if not train_as_tested:
        return experiment.data
    settings = data.settings(config)
    settings = dataclasses.replace(settings, train_size=config.image_size)
    return load_prepared(data.open_data(config), settings)


def _results(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        results = json.loads(path.read_text("utf-8"))
        for name in (*RECALLS, "mR"):
            low, high = results["intervals"]["test"][name]
            float(low), float(high), float(results["test"][name]), float(results["chance"][name])
        int(results["best_step"]), float(results["best_epoch"])
        for table in (tables.scores, tables.intervals):  # the model card has them
            table(results)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is no whole report ({type(error).__name__}: {error}); --mode=evaluate writes "
            "it anew"
        ) from None
    return results
