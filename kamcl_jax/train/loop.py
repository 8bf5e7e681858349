"""The training loop: epochs of steps, a validation and a checkpoint after each, and the report."""

import contextlib
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import ml_collections

from input_pipeline.splits.batches import prefetched
from input_pipeline.splits.findings import count_and_name
from kamcl_jax.config import build, fields
from kamcl_jax.config.build import Experiment
from kamcl_jax.config.encoders import TOWERS
from kamcl_jax.errors import CheckpointError, DamagedCheckpointError, DivergedError, Stopped
from kamcl_jax.evaluate import evaluate
from kamcl_jax.inference.embed import Encoders
from kamcl_jax.models.clip.presets import described
from kamcl_jax.parallel import compilation, hosts
from kamcl_jax.runs import folder
from kamcl_jax.runs import record as run_record
from kamcl_jax.runs.checkpoints import Checkpoints, finished_steps, folder_of
from kamcl_jax.runs.record import History
from kamcl_jax.step.state import TrainState
from kamcl_jax.step.train_step import TrainStep, make_train_step
from kamcl_jax.train import feed, progress
from kamcl_jax.train.feed import Feed
from kamcl_jax.train.interruption import StopRequest
from kamcl_jax.train.progress import Progress
from kamcl_jax.weights import starting_weights

SLOW_COMPILATION = 5.0  # seconds; a program that an earlier run kept takes fewer


def train(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains to the config's last epoch, going on from the latest checkpoint in `workdir`.

    The folder takes checkpoints, TensorBoard events and the report, whose `metrics.json` is
    returned. A signal ends the training with `Stopped`, after a checkpoint.
    """
    folder.check_writable(workdir)
    _check_early(config, workdir)
    # Without a checkpoint there is no training yet, and nothing that its tokeniser has to fit.
    goes_on = bool(finished_steps(folder_of(workdir)))
    written = folder.written_tokenizer(workdir) if goes_on else None
    experiment = build.build(config, written=written)
    folder.check_shared(workdir)
    if experiment.data.left_out:
        hosts.say(count_and_name(experiment.data.left_out, "left out"))
    with (
        folder.lock(workdir),
        Checkpoints(folder_of(workdir), experiment.config.checkpoint.keep) as checkpoints,
    ):
        state, history = _start_or_resume(experiment, checkpoints)
        encoders = evaluate.make_encoders(experiment)
        if int(state.step) < _last_step(experiment):
            write_config(experiment, workdir)
            if hosts.is_first() and written is None:
                folder.write_tokenizer(workdir, experiment.data.tokenizer)
            _train_epochs(_Run(experiment, workdir, checkpoints, encoders, history), state)
        else:
            hosts.say(
                f"already trained to step {int(state.step)}: reporting on the best checkpoint"
            )
        return evaluate.report_best(experiment, checkpoints, encoders, history, workdir)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What a training works on beside its state."""

    experiment: Experiment
    workdir: Path
    checkpoints: Checkpoints
    encoders: Encoders
    history: History


def _train_epochs(run: _Run, state: TrainState) -> None:
    """Trains from the state's step to the last one; each epoch ends with validation and checkpoint.

    `history.pending` takes the metrics of a logging interval until it ends. It travels in the
    checkpoints, so that a resumed training logs what an undisturbed one does.
    """
    experiment, history, config = run.experiment, run.history, run.experiment.config
    first_step, last_step = int(state.step), _last_step(experiment)
    started = time.perf_counter() - history.seconds
    with StopRequest() as stop:
        train_step, chosen = _compile_step(experiment)
        batches = prefetched(chosen.open(), range(first_step, last_step))
        bar = Progress(run.workdir, first_step, last_step)
        on_device = []  # metrics, until they are due: fetching makes the device wait
        with bar, contextlib.closing(batches):
            for step, batch in enumerate(batches, start=first_step + 1):
                # Everything that learns moves here: see step/train_step.py.
                state, metrics = train_step(state, batch)
                on_device.append(metrics)
                bar.step()

                stopping = stop.reached(step)
                epoch_ends = step % experiment.steps_per_epoch == 0 or step == last_step
                logs = epoch_ends or step % config.log_every_steps == 0
                saves = epoch_ends or stopping or _every(config.checkpoint.every_steps, step)

                if logs or saves:
                    rows, on_device = progress.fetch(on_device), []
                    _check_finite(run, rows, step, bar)
                    history.pending += rows
                if logs:
                    _log(run, step, bar)
                scores = _validate(run, state, step, bar) if epoch_ends else None
                if saves:
                    history.seconds = time.perf_counter() - started
                    run.checkpoints.save(state, scores, run_record.make(experiment, history))
                # Not `stop.signal`: where it came after `reached`, this step has no checkpoint.
                if stopping:
                    break
            if stop.signal is not None:
                run.checkpoints.wait()
                raise Stopped(stop.signal, step)


def _every(steps: int, step: int) -> bool:
    return steps > 0 and step % steps == 0  # 0 means never


def _last_step(experiment: Experiment) -> int:
    config = experiment.config
    steps = config.num_epochs * experiment.steps_per_epoch
    return min(steps, config.max_steps) if config.max_steps else steps


def _compile_step(experiment: Experiment) -> tuple[TrainStep, Feed]:
    """Compiles the step, and chooses where its batches come from."""
    layout = experiment.layout
    step = make_train_step(experiment.model, experiment.optimizer, experiment.settings, layout)
    with progress.told_if_slow(
        "compiling the training step: this takes about a minute the first time",
        SLOW_COMPILATION,
    ):
        compiled = compilation.compile_step(
            step, experiment.abstract_state, experiment.abstract_batch(), layout
        )
    taken = compilation.memory(compiled)
    chosen = feed.choose(experiment, taken.peak)
    hosts.say(chosen.describe())
    hosts.say(compilation.describe_memory(taken, layout, chosen.table_bytes))
    return compiled, chosen


def _check_finite(run: _Run, rows: list[progress.Row], step: int, bar: Progress) -> None:
    """Stops, or says what was skipped, if the metrics of the steps up to `step` are not finite."""
    for at, row in enumerate(rows, start=step - len(rows) + 1):
        wrong = [name for name, value in row.items() if not math.isfinite(value)]
        if not wrong:
            continue
        found = f"{', '.join(wrong)} not finite at step {at}"
        if run.experiment.settings.skip_not_finite:
            bar.say(f"{found}; {rows[-1]['skipped']:.0f} updates skipped so far")
            return
        last = run.checkpoints.last_whole
        kept = f"the last checkpoint is of step {last}" if last else "there is no checkpoint"
        raise DivergedError(f"{found}; {kept} (config.not_finite='skip' leaves such updates out)")


def _log(run: _Run, step: int, bar: Progress) -> None:
    means = progress.means(run.history.pending)
    run.history.pending = []
    if means is not None:
        epoch = step / run.experiment.steps_per_epoch
        run.history.train.append({"step": step, "epoch": epoch, **means})
        bar.train(step, means, run.experiment.config.batch_size)


def _validate(run: _Run, state: TrainState, step: int, bar: Progress) -> dict[str, float]:
    experiment, settings = run.experiment, run.experiment.config.evaluation
    scores, _ = evaluate.score_split(
        run.encoders,
        build.retrieving_variables(experiment.config, state),
        experiment.data.validation,
        settings.batch_size,
        settings.ties,
    )
    epoch = step / experiment.steps_per_epoch
    bar.validation(step, epoch, scores)
    run.history.validation.append({"step": step, "epoch": epoch, **scores})
    return scores


def _check_early(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Refuses what can be refused before data are prepared."""
    build.check_with_devices(config)
    if not folder_of(workdir).is_dir():
        starting_weights.check_weight_files(config)
        return
    # Where the latest checkpoint is damaged, the one before may do.
    with (
        contextlib.suppress(DamagedCheckpointError),
        Checkpoints(folder_of(workdir), read_only=True) as checkpoints,
    ):
        if checkpoints.latest is not None:
            record = checkpoints.record(checkpoints.latest)
            fields.check_against_checkpoint(config, record["config"])
    starting_weights.check_frozen_file(config)


def _start_or_resume(
    experiment: Experiment, checkpoints: Checkpoints
) -> tuple[TrainState, History]:
    """Restores the newest checkpoint that can be read; damaged ones are set aside."""
    damaged: list[int] = []
    for step in reversed(checkpoints.steps):
        try:
            run_record.check_same_run(experiment, checkpoints.record(step))
            restored = checkpoints.restore(step, experiment.abstract_state, experiment.layout.state)
        except DamagedCheckpointError as error:
            hosts.say(f"note: {error}")
            damaged.append(step)
            continue
        if damaged:
            hosts.say(f"note: moved to {checkpoints.set_aside(damaged)}: {_listed(damaged)}")
        hosts.say(f"going on from the checkpoint of step {step}")
        frozen = experiment.frozen()
        checkpoints.check_frozen(step, frozen, build.source_of_frozen(experiment.config))
        state = restored.state.replace(frozen=frozen)
        return state, run_record.history_of(restored.record)
    if damaged:
        raise CheckpointError(
            f"none of the checkpoints can be read (of steps {_listed(damaged)}); "
            "choose another --workdir to start anew"
        )
    config = experiment.config
    if config.encoders.preset:
        start = config.encoders.pretrained or "random weights"
        hosts.say(f"encoders start from {start}: a {described(config.encoders.preset)}")
    else:
        for encoder in TOWERS:
            hosts.say(f"{encoder} starts from {config[encoder].pretrained or 'random weights'}")
    return experiment.initial_state(), History()


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps))


def write_config(experiment: Experiment, workdir: Path) -> None:
    """Writes the config to `workdir/config.json`."""
    if hosts.is_first():
        flat = fields.flatten(experiment.config)
        (workdir / "config.json").write_text(json.dumps(flat, indent=2) + "\n")
