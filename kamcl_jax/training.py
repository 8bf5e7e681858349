"""The training loop: epochs of steps, validation, checkpoints, and the report at the end."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from input_pipeline import loader
from input_pipeline.examples import Examples
from kamcl_jax import config_check, evaluation, from_config, reporting, sharding
from kamcl_jax.checkpoints import Checkpoints
from kamcl_jax.from_config import Experiment
from kamcl_jax.progress import Progress
from kamcl_jax.train_state import TrainState
from kamcl_jax.train_step import make_train_step

CHECKPOINT_FOLDER = "checkpoints"


@dataclasses.dataclass
class History:
    """What the curves are drawn from; travels in every checkpoint.

    Attributes:
      train: means of the step's metrics over each logging interval, with `step` and `epoch`.
      validation: metrics after each epoch, with `step` and `epoch` (whole epochs passed).
      seconds: spent in training and validation so far.
    """

    train: list[dict[str, float]] = dataclasses.field(default_factory=list)
    validation: list[dict[str, float]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


def train(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains to the config's last epoch, going on from the latest checkpoint in `workdir`.

    Args:
      config: as `configs.base` describes it.
      workdir: holds checkpoints, TensorBoard events and the report.

    Returns:
      The contents of `report/metrics.json`.

    Raises:
      ConfigError: the config cannot be trained, or `workdir` holds a run of another one.
      DataError: the data cannot be used.
    """
    experiment = from_config.build(config)
    workdir.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(workdir / CHECKPOINT_FOLDER)
    state, history = _start_or_resume(experiment, checkpoints)
    encoders = evaluation.make_encoders(experiment.model, experiment.mesh)
    last_step = _last_step(experiment)
    if int(state.step) >= last_step:
        print(f"already trained to step {last_step}: reporting on the best checkpoint")
    else:
        _write_config(experiment, workdir)
        _run_epochs(experiment, checkpoints, encoders, state, history, workdir)
    del state
    results = _score_best(experiment, checkpoints, encoders, history, workdir)
    checkpoints.close()
    return results


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
    if not (workdir / CHECKPOINT_FOLDER).is_dir():
        raise config_check.ConfigError(f"{workdir} holds no checkpoints; train there first")
    experiment = from_config.build(config)
    checkpoints = Checkpoints(workdir / CHECKPOINT_FOLDER)
    if checkpoints.best is None:
        raise config_check.ConfigError(f"{workdir} holds no finished checkpoint; train there first")
    record = checkpoints.record(checkpoints.best)
    _check_record(experiment, record)
    history = History(**checkpoints.record(checkpoints.latest or checkpoints.best)["history"])
    encoders = evaluation.make_encoders(experiment.model, experiment.mesh)
    results = _score_best(experiment, checkpoints, encoders, history, workdir)
    checkpoints.close()
    return results


def _start_or_resume(
    experiment: Experiment, checkpoints: Checkpoints
) -> tuple[TrainState, History]:
    latest = checkpoints.latest
    if latest is None:
        return experiment.initial_state(), History()
    record = checkpoints.record(latest)
    _check_record(experiment, record)
    print(f"going on from the checkpoint of step {latest}")
    where = sharding.replicated(experiment.mesh)
    state = checkpoints.restore(latest, experiment.abstract_state(), where)
    return state, History(**record["history"])


def _check_record(experiment: Experiment, record: dict[str, Any]) -> None:
    """Refuses a checkpoint of another config, vocabulary or concepts."""
    config_check.check_against_checkpoint(experiment.config, record["config"])
    for name, now in _words(experiment).items():
        if record[name] != now:
            raise config_check.ConfigError(
                f"the {name} of the data has changed since the checkpoint was written "
                f"({len(record[name])} words then, {len(now)} now)"
            )


def _words(experiment: Experiment) -> dict[str, list[str]]:
    data = experiment.data
    return {"vocabulary": list(data.vocabulary.words), "concepts": list(data.concepts.words)}


def _last_step(experiment: Experiment) -> int:
    config = experiment.config
    steps = config.num_epochs * experiment.settings.steps_per_epoch
    return min(steps, config.max_steps) if config.max_steps else steps


def _write_config(experiment: Experiment, workdir: Path) -> None:
    fields = config_check.flatten(experiment.config)
    (workdir / "config.json").write_text(json.dumps(fields, indent=2) + "\n")


def _run_epochs(
    experiment: Experiment,
    checkpoints: Checkpoints,
    encoders: evaluation.Encoders,
    state: TrainState,
    history: History,
    workdir: Path,
) -> None:
    """Trains from the state's step to the last one, validating and saving after each epoch."""
    config, settings = experiment.config, experiment.settings
    first_step, last_step = int(state.step), _last_step(experiment)
    train_step = make_train_step(experiment.model, experiment.optimizer, settings, experiment.mesh)
    progress = Progress(
        workdir,
        first_step=first_step,
        last_step=last_step,
        batch_size=config.batch_size,
        log_every=config.log_every_steps,
    )
    started = time.perf_counter() - history.seconds
    batches = loader.prefetched(_batch_of_step(experiment), range(first_step, last_step))
    for step, batch in enumerate(batches, start=first_step + 1):
        state, metrics = train_step(state, batch)
        epoch = (step - 1) // settings.steps_per_epoch
        means = progress.step(step, metrics)
        ends = step % settings.steps_per_epoch == 0 or step == last_step
        if ends:
            means = means or progress.flush(step)
        if means:
            history.train.append({"step": step, "epoch": epoch, **means})
        if ends:
            scores, _ = score(encoders, variables_of(state), experiment.data.validation, config)
            progress.validation(step, epoch, scores)
            history.validation.append({"step": step, "epoch": epoch + 1, **scores})
            history.seconds = time.perf_counter() - started
            checkpoints.save(state, scores, _record(experiment, history))
            progress.resume_clock()
    progress.close()


def _batch_of_step(experiment: Experiment):
    """Returns step -> this host's share of the step's batch, on the mesh."""
    config, examples = experiment.config, experiment.data.train

    def fetch(step: int):
        captions = loader.batch_captions(
            config.seed, step, len(examples.captions), config.batch_size
        )
        share = loader.host_share(captions, jax.process_index(), jax.process_count())
        return sharding.put_batch(experiment.mesh, loader.make_batch(examples, share))

    return fetch


def _record(experiment: Experiment, history: History) -> dict[str, Any]:
    return {
        "config": config_check.flatten(experiment.config),
        "history": dataclasses.asdict(history),
        **_words(experiment),
    }


def variables_of(state: TrainState) -> dict[str, Any]:
    """Returns the query encoders' variables: those that retrieve."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def score(
    encoders: evaluation.Encoders, variables: Any, examples: Examples, config: Any
) -> tuple[dict[str, float], np.ndarray]:
    """Returns the retrieval metrics of a split and its similarities f32[N, M]."""
    batch_size = config.evaluation.batch_size
    images = evaluation.embed_images(encoders, variables, examples.images, batch_size)
    texts = evaluation.embed_texts(
        encoders, variables, examples.tokens, examples.lengths, examples.word_concepts, batch_size
    )
    similarity = images @ texts.T
    return evaluation.retrieval_metrics(similarity, examples.image_of_caption), similarity


def _score_best(
    experiment: Experiment,
    checkpoints: Checkpoints,
    encoders: evaluation.Encoders,
    history: History,
    workdir: Path,
) -> dict[str, Any]:
    """Scores validation and test with the best checkpoint and writes the report."""
    best = checkpoints.best
    assert best is not None  # a checkpoint is written before training ends
    where = sharding.replicated(experiment.mesh)
    state = checkpoints.restore(best, experiment.abstract_state(), where)
    data, variables = experiment.data, variables_of(state)
    validation, _ = score(encoders, variables, data.validation, experiment.config)
    test, similarity = score(encoders, variables, data.test, experiment.config)
    results = {
        "test": test,
        "val": validation,
        "chance": evaluation.chance_metrics(data.test.image_of_caption),
        "best_step": best,
        "best_epoch": best / experiment.settings.steps_per_epoch,
        "seconds": history.seconds,
    }
    logging.info("best checkpoint: step %d", best)
    reporting.write(workdir / "report", experiment, history, results, similarity)
    return results
