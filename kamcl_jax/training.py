"""The training loop: epochs of steps, validation, checkpoints, and the report at the end."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import ml_collections

from input_pipeline import loader
from kamcl_jax import config_check, evaluation, from_config, reporting, result_tables, sharding
from kamcl_jax.checkpoints import Checkpoints
from kamcl_jax.config_check import ConfigError
from kamcl_jax.from_config import Experiment
from kamcl_jax.history import History
from kamcl_jax.metrics import chance_metrics
from kamcl_jax.pretrained import starting_weights
from kamcl_jax.progress import Progress
from kamcl_jax.train_state import TrainState
from kamcl_jax.train_step import make_train_step

CHECKPOINT_FOLDER = "checkpoints"


class DivergedError(RuntimeError):
    """The loss is no longer a finite number; told in one sentence."""


def train(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains to the config's last epoch, going on from the latest checkpoint in `workdir`.

    Args:
      config: as `configs.base` describes it.
      workdir: holds checkpoints, TensorBoard events and the report.

    Returns:
      The contents of `report/metrics.json`.

    Raises:
      ConfigError: the config cannot be trained, or `workdir` cannot be written or holds a run of
        another config.
      PretrainedError: weights that the config names are missing or do not fit.
      DataError: the data cannot be used.
      DivergedError: the loss is not finite; the last checkpoint is from before.
    """
    config_check.check_workdir(workdir)
    if not (workdir / CHECKPOINT_FOLDER).is_dir():
        starting_weights.check(config)
    experiment = from_config.build(config)
    workdir.mkdir(parents=True, exist_ok=True)
    with Checkpoints(workdir / CHECKPOINT_FOLDER) as checkpoints:
        state, history = _start_or_resume(experiment, checkpoints)
        encoders = evaluation.make_encoders(experiment.model, experiment.mesh)
        if int(state.step) >= _last_step(experiment):
            print(f"already trained to step {int(state.step)}: reporting on the best checkpoint")
        else:
            write_config(experiment, workdir)
            _run_steps(experiment, checkpoints, encoders, state, history, workdir)
        return _report_best(experiment, checkpoints, encoders, history, workdir)


def evaluate(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any]:
    """Scores the best checkpoint of a run on its test split and writes the report anew.

    Args:
      config: of the run.
      workdir: of the run.

    Returns:
      The contents of `report/metrics.json`.

    Raises:
      ConfigError: there is no checkpoint, or it is of another config.
      DataError: the data cannot be used.
    """
    with open_checkpoints(workdir) as checkpoints:
        experiment = from_config.build(config)
        latest = checkpoints.latest
        assert latest is not None  # open_checkpoints refuses a folder without any
        stored = checkpoints.record(latest)
        _check_record(experiment, stored)
        encoders = evaluation.make_encoders(experiment.model, experiment.mesh)
        history = History(**stored["history"])
        return _report_best(experiment, checkpoints, encoders, history, workdir)


@contextmanager
def open_checkpoints(workdir: Path) -> Iterator[Checkpoints]:
    """Opens the checkpoints of a run, of which there is at least one.

    Raises:
      ConfigError: there is none.
    """
    if not (workdir / CHECKPOINT_FOLDER).is_dir():
        raise ConfigError(f"{workdir} holds no checkpoints; train there first")
    with Checkpoints(workdir / CHECKPOINT_FOLDER) as checkpoints:
        if checkpoints.latest is None:
            raise ConfigError(f"{workdir} holds no finished checkpoint; train there first")
        yield checkpoints


def _start_or_resume(
    experiment: Experiment, checkpoints: Checkpoints
) -> tuple[TrainState, History]:
    latest = checkpoints.latest
    if latest is None:
        config = experiment.config
        for encoder in ("image_encoder", "text_encoder"):
            print(f"{encoder} starts from {config[encoder].pretrained or 'random weights'}")
        return experiment.initial_state(), History()
    stored = checkpoints.record(latest)
    _check_record(experiment, stored)
    print(f"going on from the checkpoint of step {latest}")
    where = sharding.replicated(experiment.mesh)
    state = checkpoints.restore(latest, experiment.abstract_state(), where)
    return state, History(**stored["history"])


def _check_record(experiment: Experiment, stored: dict[str, Any]) -> None:
    """Refuses a checkpoint of another config or of other data."""
    config_check.check_against_checkpoint(experiment.config, stored["config"])
    for name, now in _data_record(experiment).items():
        if stored[name] != now:
            raise ConfigError(f"the data's {name} changed since the checkpoint was written")


def _data_record(experiment: Experiment) -> dict[str, Any]:
    """What of the data a checkpoint depends on: the words, and which pairs a step shows."""
    data = experiment.data
    return {
        "vocabulary": list(data.vocabulary.words),
        "concepts": list(data.concepts.words),
        "concept_width": data.num_concepts,
        "training captions": data.training_captions,
    }


def _last_step(experiment: Experiment) -> int:
    config = experiment.config
    steps = config.num_epochs * experiment.settings.steps_per_epoch
    return min(steps, config.max_steps) if config.max_steps else steps


def write_config(experiment: Experiment, workdir: Path) -> None:
    """Writes the config to `workdir/config.json`."""
    fields = config_check.flatten(experiment.config)
    (workdir / "config.json").write_text(json.dumps(fields, indent=2) + "\n")


def _run_steps(
    experiment: Experiment,
    checkpoints: Checkpoints,
    encoders: evaluation.Encoders,
    state: TrainState,
    history: History,
    workdir: Path,
) -> None:
    """Trains from the state's step to the last one, validating and saving after each epoch."""
    config, steps_per_epoch = experiment.config, experiment.settings.steps_per_epoch
    first_step, last_step = int(state.step), _last_step(experiment)
    train_step = make_train_step(
        experiment.model, experiment.optimizer, experiment.settings, experiment.mesh
    )
    progress = Progress(
        workdir,
        first_step=first_step,
        last_step=last_step,
        batch_size=config.batch_size,
        log_every=config.log_every_steps,
    )
    batches = loader.prefetched(_batch_of_step(experiment), range(first_step, last_step))
    started = time.perf_counter() - history.seconds
    with progress, closing(batches):
        for step, batch in enumerate(batches, start=first_step + 1):
            state, metrics = train_step(state, batch)
            epoch = step / steps_per_epoch
            ends = step % steps_per_epoch == 0 or step == last_step
            means = progress.step(step, metrics) or (progress.flush(step) if ends else None)
            if means:
                _check_finite(means, step, checkpoints.latest)
                history.train.append({"step": step, "epoch": epoch, **means})
            if ends:
                scores, _ = evaluation.score(
                    encoders,
                    state.variables,
                    experiment.data.validation,
                    config.evaluation.batch_size,
                    config.evaluation.ties,
                )
                progress.validation(step, epoch, scores)
                history.validation.append({"step": step, "epoch": epoch, **scores})
                history.seconds = time.perf_counter() - started
                checkpoints.save(state, scores, record(experiment, history))
                progress.resume_clock()


def _check_finite(means: dict[str, float], step: int, last_good: int | None) -> None:
    wrong = [name for name, value in means.items() if not math.isfinite(value)]
    if wrong:
        kept = (
            f"the last checkpoint is of step {last_good}" if last_good else "there is no checkpoint"
        )
        raise DivergedError(f"{', '.join(wrong)} not finite at or before step {step}; {kept}")


def _batch_of_step(experiment: Experiment) -> Callable[[int], dict[str, jax.Array]]:
    """Returns step -> this process's share of the step's batch, on the mesh."""
    config, examples = experiment.config, experiment.data.train

    def fetch(step: int):
        captions = loader.batch_captions(
            config.seed, step, len(examples.captions), config.batch_size
        )
        share = loader.host_share(captions, jax.process_index(), jax.process_count())
        return sharding.put_batch(experiment.mesh, loader.make_batch(examples, share))

    return fetch


def record(experiment: Experiment, history: History) -> dict[str, Any]:
    """Returns what travels with a checkpoint: config, history, vocabulary, concepts."""
    return {
        "steps_per_epoch": experiment.settings.steps_per_epoch,
        "config": config_check.flatten(experiment.config),
        "history": dataclasses.asdict(history),
        **_data_record(experiment),
    }


def _report_best(
    experiment: Experiment,
    checkpoints: Checkpoints,
    encoders: evaluation.Encoders,
    history: History,
    workdir: Path,
) -> dict[str, Any]:
    """Scores the test split with the checkpoint of the best validation and writes the report."""
    best = checkpoints.best
    assert best is not None  # a checkpoint is written before training ends
    where = sharding.replicated(experiment.mesh)
    state = checkpoints.restore(best, experiment.abstract_state(), where)
    test, settings = experiment.data.test, experiment.config.evaluation
    scores, similarity = evaluation.score(
        encoders, state.variables, test, settings.batch_size, settings.ties
    )
    results = {
        "test": scores,
        "val": history.validation_at(best),
        "chance": chance_metrics(test.image_of_caption),
        "best_step": best,
        "best_epoch": best / experiment.settings.steps_per_epoch,
        "seconds": history.seconds,
        **evaluation.look_closer(similarity, test, settings.ties),
    }
    reporting.write(workdir / "report", experiment, history, results, similarity)
    print(result_tables.summary(results))
    print(f"report: {workdir / 'report' / 'report.md'}")
    return results
