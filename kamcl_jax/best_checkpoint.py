"""Scores the checkpoint of the best validation on the test split and writes the report."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import ml_collections

from kamcl_jax import checkpoints as stored_checkpoints
from kamcl_jax import (
    evaluation,
    from_config,
    hosts,
    reporting,
    result_tables,
    run_folder,
    run_record,
)
from kamcl_jax.checkpoints import Checkpoints, DamagedCheckpointError
from kamcl_jax.config_check import ConfigError
from kamcl_jax.evaluation import Encoders
from kamcl_jax.from_config import Experiment
from kamcl_jax.history import History
from kamcl_jax.metrics import chance_metrics

T = TypeVar("T")


def evaluate(config: ml_collections.ConfigDict | None, workdir: Path) -> dict[str, Any]:
    """Scores the best checkpoint of a run on its test split and writes the report anew.

    Args:
      config: of the run; the one in the checkpoint, if None.
      workdir: of the run.

    Returns:
      The contents of `report/metrics.json`.

    Raises:
      ConfigError: there is no checkpoint, or it is of another config.
      CheckpointError: it cannot be read.
      DataError: the data cannot be used.
    """
    run_folder.check_shared(workdir)
    with open_checkpoints(workdir) as checkpoints:
        stored = first_readable(reversed(checkpoints.steps), checkpoints.record)
        if config is None:
            config = from_config.on_these_devices(run_record.config_of(stored))
        experiment = from_config.build(config, trains=False)
        run_record.check(experiment, stored)
        return report(
            experiment,
            checkpoints,
            make_encoders(experiment),
            run_record.history_of(stored),
            workdir,
        )


@contextlib.contextmanager
def open_checkpoints(workdir: Path) -> Iterator[Checkpoints]:
    """Opens the checkpoints of a run to read them; there is at least one.

    Raises:
      ConfigError: there is none.
    """
    folder = stored_checkpoints.folder_of(workdir)
    if not folder.is_dir():
        raise ConfigError(f"{workdir} holds no checkpoints; train there first")
    with Checkpoints(folder, read_only=True) as checkpoints:
        if checkpoints.latest is None:
            raise ConfigError(f"{workdir} holds no finished checkpoint; train there first")
        yield checkpoints


def _best(experiment: Experiment, checkpoints: Checkpoints) -> tuple[int, dict[str, Any]]:
    """Returns the step and what is needed of the best checkpoint that can be read."""
    like, places = experiment.abstract_state, experiment.layout.state

    def read(step: int) -> tuple[int, dict[str, Any]]:
        needed = ("params", "batch_stats", "skipped")
        return step, checkpoints.restore_fields(step, like, places, needed)

    def tell(error: DamagedCheckpointError) -> None:
        hosts.warn(f"{error}; the next best one takes its place")

    return first_readable(checkpoints.best_first, read, tell)


def first_readable(
    steps: Iterable[int],
    read: Callable[[int], T],
    tell: Callable[[DamagedCheckpointError], None] = lambda error: None,
) -> T:
    """Reads the first of one or more checkpoints that is not damaged.

    Raises:
      DamagedCheckpointError: the last of them is damaged, too.
    """
    *others, last = steps
    for step in others:
        try:
            return read(step)
        except DamagedCheckpointError as error:
            tell(error)
    return read(last)


def make_encoders(experiment: Experiment) -> Encoders:
    """Returns the compiled encoders of an experiment."""
    dtype = from_config.compute_dtype(experiment.config)
    return evaluation.make_encoders(experiment.model, experiment.layout, dtype)


def report(
    experiment: Experiment,
    checkpoints: Checkpoints,
    encoders: Encoders,
    history: History,
    workdir: Path,
) -> dict[str, Any]:
    """Scores the best checkpoint, or the latest where none was validated, and writes the report.

    Args:
      experiment: that was trained.
      checkpoints: of the run, at least one.
      encoders: from `make_encoders`.
      history: of the training.
      workdir: the report goes to its `report` folder.

    Returns:
      The contents of `report/metrics.json`.

    Raises:
      CheckpointError: the checkpoint cannot be read.
    """
    best, variables = _best(experiment, checkpoints)
    skipped = variables.pop("skipped")
    test, settings = experiment.data.test, experiment.config.evaluation
    embeddings = evaluation.embed(encoders, variables, test, settings.batch_size)
    results = {
        **evaluation.look_closer(embeddings, test, settings.ties),
        "val": history.validation_at(best),
        "chance": chance_metrics(test.image_of_caption),
        "best_step": best,
        "best_epoch": best / experiment.steps_per_epoch,
        "skipped_updates": int(skipped),
        "seconds": history.seconds,
    }
    if hosts.is_first():
        reporting.write(workdir / "report", experiment, history, results, embeddings)
    hosts.say(result_tables.summary(results))
    hosts.say(f"report: {workdir / 'report' / 'report.md'}")
    return results
