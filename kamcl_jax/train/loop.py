"""The training loop: epochs of steps, validation, checkpoints, and the report at the end."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

from input_pipeline.splits import batches as loader
from input_pipeline.splits.findings import count_and_name
from kamcl_jax.config import build
from kamcl_jax.config import fields as config_check
from kamcl_jax.config.build import Experiment
from kamcl_jax.errors import CheckpointError, DamagedCheckpointError, DivergedError, Stopped
from kamcl_jax.evaluate import evaluate
from kamcl_jax.inference.embed import Encoders
from kamcl_jax.parallel import compiled_step, hosts
from kamcl_jax.runs import folder
from kamcl_jax.runs import record as run_record
from kamcl_jax.runs.checkpoints import Checkpoints, folder_of
from kamcl_jax.runs.record import History
from kamcl_jax.step.state import TrainState
from kamcl_jax.step.train_step import TrainStep, make_train_step
from kamcl_jax.train import feed, step_metrics
from kamcl_jax.train.feed import Feed
from kamcl_jax.train.interruption import StopRequest
from kamcl_jax.train.progress import Progress
from kamcl_jax.train.step_metrics import StepMetrics
from kamcl_jax.weights import starting_weights


def train(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains to the config's last epoch, going on from the latest checkpoint in `workdir`.

    Args:
      config: as `configs.base` describes it.
      workdir: holds checkpoints, TensorBoard events and the report.

    Returns:
      The contents of `report/metrics.json`.

    Raises:
      ConfigError: the config cannot be trained, or `workdir` cannot be written, or holds a run of
        another config or one that goes on right now.
      PretrainedError: weights that the config names are missing or do not fit.
      DataError: the data cannot be used.
      CheckpointError: checkpoints cannot be written, or none can be read.
      DivergedError: a loss or gradient is not finite; the last checkpoint is from before.
      Stopped: by a signal, after a checkpoint.
    """
    folder.check_writable(workdir)
    _check_early(config, workdir)
    experiment = build.build(config)
    folder.check_shared(workdir)
    if experiment.data.left_out:
        hosts.say(count_and_name(experiment.data.left_out, "left out"))
    with (
        folder.lock(workdir),
        Checkpoints(folder_of(workdir), experiment.config.checkpoint.keep) as checkpoints,
    ):
        state, history = _start_or_resume(experiment, checkpoints)
        encoders = evaluate.make_encoders(experiment)
        if int(state.step) >= _last_step(experiment):
            hosts.say(
                f"already trained to step {int(state.step)}: reporting on the best checkpoint"
            )
        else:
            write_config(experiment, workdir)
            _run_steps(experiment, checkpoints, encoders, state, history, workdir)
        return evaluate.report_best(experiment, checkpoints, encoders, history, workdir)


def _check_early(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Refuses what can be refused before data are prepared."""
    build.check_with_devices(config)
    if not folder_of(workdir).is_dir():
        starting_weights.check_weight_files(config)
        return
    # Of damaged ones, the one before may do.
    with (
        contextlib.suppress(DamagedCheckpointError),
        Checkpoints(folder_of(workdir), read_only=True) as checkpoints,
    ):
        if checkpoints.latest is not None:
            record = checkpoints.record(checkpoints.latest)
            config_check.check_against_checkpoint(config, record["config"])


def _start_or_resume(
    experiment: Experiment, checkpoints: Checkpoints
) -> tuple[TrainState, History]:
    damaged: list[int] = []
    like, places = experiment.abstract_state, experiment.layout.state
    for step in reversed(checkpoints.steps):
        try:
            run_record.check_same_run(experiment, checkpoints.record(step))
            restored = checkpoints.restore(step, like, places)
        except DamagedCheckpointError as error:
            hosts.say(f"note: {error}")
            damaged.append(step)
            continue
        if damaged:
            hosts.say(f"note: moved to {checkpoints.set_aside(damaged)}: {_listed(damaged)}")
        hosts.say(f"going on from the checkpoint of step {step}")
        return restored.state, run_record.history_of(restored.record)
    if damaged:
        raise CheckpointError(
            f"none of the checkpoints can be read (of steps {_listed(damaged)}); "
            "choose another --workdir to start anew"
        )
    config = experiment.config
    for encoder in ("image_encoder", "text_encoder"):
        hosts.say(f"{encoder} starts from {config[encoder].pretrained or 'random weights'}")
    return experiment.initial_state(), History()


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps))


def _last_step(experiment: Experiment) -> int:
    config = experiment.config
    steps = config.num_epochs * experiment.steps_per_epoch
    return min(steps, config.max_steps) if config.max_steps else steps


def write_config(experiment: Experiment, workdir: Path) -> None:
    """Writes the config to `workdir/config.json`."""
    fields = config_check.flatten(experiment.config)
    if hosts.is_first():
        (workdir / "config.json").write_text(json.dumps(fields, indent=2) + "\n")


def _compile_step(experiment: Experiment) -> tuple[TrainStep, Feed]:
    """Compiles the step, and chooses where its batches come from."""
    layout = experiment.layout
    step = make_train_step(experiment.model, experiment.optimizer, experiment.settings, layout)
    compiled = compiled_step.compile_step(
        step, experiment.abstract_state, experiment.abstract_batch(), layout
    )
    taken = compiled_step.memory(compiled)
    chosen = feed.choose(experiment, taken.peak)
    hosts.say(chosen.describe())
    hosts.say(compiled_step.describe(taken, layout, chosen.table_bytes))
    return compiled, chosen


def _run_steps(
    experiment: Experiment,
    checkpoints: Checkpoints,
    encoders: Encoders,
    state: TrainState,
    history: History,
    workdir: Path,
) -> None:
    """Trains from the state's step to the last one, validating after each epoch."""
    first_step, last_step = int(state.step), _last_step(experiment)
    started = time.perf_counter() - history.seconds
    metrics = StepMetrics(history.pending)
    with StopRequest() as stop:
        train_step, chosen = _compile_step(experiment)
        batches = loader.prefetched(chosen.open(), range(first_step, last_step))
        progress = Progress(
            workdir, first_step=first_step, last_step=last_step, shown=hosts.is_first()
        )
        with progress, contextlib.closing(batches):
            for step, batch in enumerate(batches, start=first_step + 1):
                state, measured = train_step(state, batch)
                metrics.add(measured)
                progress.step()
                due = _due(experiment, step, last_step)
                stopping = stop.reached(step)
                if due.row or due.checkpoint or stopping:
                    _tell_not_finite(experiment, metrics.fetch(), step, checkpoints, progress)
                    history.pending = metrics.rows
                if due.row:
                    _log(experiment, history, step, progress)
                    metrics.clear()
                scores = None
                if due.validation:
                    scores = _validate(experiment, encoders, state, history, step, progress)
                if due.checkpoint or stopping:
                    history.seconds = time.perf_counter() - started
                    checkpoints.save(state, scores, run_record.make(experiment, history))
                # Not `stop.signal`, which may have come since: this step would have no checkpoint.
                if stopping:
                    checkpoints.wait()
                    assert stop.signal is not None
                    raise Stopped(stop.signal, step)
            if stop.signal is not None:  # during the last step
                checkpoints.wait()
                raise Stopped(stop.signal, last_step)


class _Due(NamedTuple):
    """What follows a step."""

    row: bool
    validation: bool
    checkpoint: bool


def _due(experiment: Experiment, step: int, last_step: int) -> _Due:
    config = experiment.config
    ends = step % experiment.steps_per_epoch == 0 or step == last_step
    every = config.checkpoint.every_steps
    return _Due(
        row=ends or step % config.log_every_steps == 0,
        validation=ends,
        checkpoint=ends or bool(every and step % every == 0),
    )


def _tell_not_finite(
    experiment: Experiment,
    rows: list[step_metrics.Row],
    step: int,
    checkpoints: Checkpoints,
    progress: Progress,
) -> None:
    """Stops, or says what was skipped, if the metrics of the steps up to `step` are not finite."""
    found = step_metrics.first_not_finite(rows)
    if found is None:
        return
    index, wrong = found
    at = step - len(rows) + 1 + index
    if experiment.settings.skip_not_finite:
        skipped = f"{rows[-1]['skipped']:.0f} updates skipped so far"
        progress.say(f"{', '.join(wrong)} not finite at step {at}; {skipped}")
        return
    last_good = checkpoints.last_whole
    kept = f"the last checkpoint is of step {last_good}" if last_good else "there is no checkpoint"
    raise DivergedError(
        f"{', '.join(wrong)} not finite at step {at}; {kept} "
        "(config.not_finite='skip' leaves such updates out)"
    )


def _log(experiment: Experiment, history: History, step: int, progress: Progress) -> None:
    """Ends a logging interval."""
    means = step_metrics.means(history.pending)
    history.pending = []
    if means is not None:
        history.train.append({"step": step, "epoch": step / experiment.steps_per_epoch, **means})
        progress.train(step, means, experiment.config.batch_size)


def _validate(
    experiment: Experiment,
    encoders: Encoders,
    state: TrainState,
    history: History,
    step: int,
    progress: Progress,
) -> dict[str, float]:
    settings, epoch = experiment.config.evaluation, step / experiment.steps_per_epoch
    scores, _ = evaluate.score_split(
        encoders,
        state.variables,
        experiment.data.validation,
        settings.batch_size,
        settings.ties,
    )
    progress.validation(step, epoch, scores)
    progress.resume_clock()
    history.validation.append({"step": step, "epoch": epoch, **scores})
    return scores
