"""Scores the checkpoint of the best validation on the test split and writes the report."""

from pathlib import Path
from typing import Any, TypeVar

import ml_collections

from input_pipeline.language.texts import equal_text_ids
from input_pipeline.splits.examples import Examples
from kamcl_jax.config import build
from kamcl_jax.config.build import Experiment
from kamcl_jax.errors import DamagedCheckpointError
from kamcl_jax.evaluate import report as reporting
from kamcl_jax.evaluate import tables
from kamcl_jax.inference import embed
from kamcl_jax.inference.embed import Encoders
from kamcl_jax.parallel import hosts
from kamcl_jax.ranking import bootstrap, metrics, ranks, scene_classes
from kamcl_jax.ranking.metrics import chance_metrics
from kamcl_jax.ranking.scores import Array, Embeddings, Scores
from kamcl_jax.runs import folder as run_folder
from kamcl_jax.runs import record
from kamcl_jax.runs.checkpoints import Checkpoints, first_readable, open_checkpoints
from kamcl_jax.runs.record import History

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
            config = build.on_these_devices(record.config_of(stored))
        experiment = build.build(config, trains=False)
        record.check_same_run(experiment, stored)
        return report(
            experiment,
            checkpoints,
            make_encoders(experiment),
            record.history_of(stored),
            workdir,
        )


def _best(experiment: Experiment, checkpoints: Checkpoints) -> tuple[int, dict[str, Any]]:
    """Returns the step and what is needed of the best checkpoint that can be read."""
    like, places = experiment.abstract_state, experiment.layout.state

    def read(step: int) -> tuple[int, dict[str, Any]]:
        needed = ("params", "batch_stats", "skipped")
        return step, checkpoints.restore_fields(step, like, places, needed)

    def tell(error: DamagedCheckpointError) -> None:
        hosts.warn(f"{error}; the next best one takes its place")

    return first_readable(checkpoints.best_first, read, tell)


def make_encoders(experiment: Experiment) -> Encoders:
    """Returns the compiled encoders of an experiment."""
    dtype = build.compute_dtype(experiment.config)
    return embed.make_encoders(experiment.model, experiment.layout, dtype)


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
    embeddings = embed.embed(encoders, variables, test, settings.batch_size)
    results = {
        **look_closer(embeddings, test, settings.ties),
        "val": history.validation_at(best),
        "chance": chance_metrics(test.image_of_caption),
        "best_step": best,
        "best_epoch": best / experiment.steps_per_epoch,
        "skipped_updates": int(skipped),
        "seconds": history.seconds,
    }
    if hosts.is_first():
        reporting.write(workdir / "report", experiment, history, results, embeddings)
    hosts.say(tables.summary(results))
    hosts.say(f"report: {workdir / 'report' / 'report.md'}")
    return results


def score(
    encoders: Encoders,
    variables: Any,
    examples: Examples,
    batch_size: int,
    ties: str = "expected",
) -> tuple[dict[str, float], Embeddings]:
    """Scores a split.

    Args:
      encoders: from `make_encoders`.
      variables: of the model.
      examples: the split.
      batch_size: of the encoding.
      ties: see `metrics.retrieval_metrics`.

    Returns:
      The split's retrieval metrics and its embeddings.

    Raises:
      ValueError: `ties` is not one of `ranking.TIES`.
    """
    embeddings = embed.embed(encoders, variables, examples, batch_size)
    return metrics.retrieval_metrics(embeddings, examples.image_of_caption, ties), embeddings


def look_closer(scores: Scores | Array, examples: Examples, ties: str) -> dict[str, Any]:
    """Returns what a report says of the test split: the official scores, and more.

    Args:
      scores: f32[N, M], images by captions, or the embeddings that `embed` returns.
      examples: the test split.
      ties: see `metrics.retrieval_metrics`.

    Returns:
      `test`: the official metrics; `test_equal_texts`: the metrics where every image or caption
      with the query's text is right; `intervals`: 95 % intervals over images of both, see
      `bootstrap.intervals`; `classes`: official recalls of the scene classes, see
      `scene_classes.breakdown`, or None.

    Raises:
      ValueError: `ties` is not one of `ranking.TIES`.
    """
    images, texts = examples.image_of_caption, equal_text_ids(examples.captions)
    official, equal = ranks.both_ways_for_each(scores, images, [None, texts], ties)
    return {
        "test": metrics.of_ranks(official, ties),
        "test_equal_texts": metrics.of_ranks(equal, ties),
        "intervals": {
            "test": bootstrap.intervals(official, images),
            "test_equal_texts": bootstrap.intervals(equal, images),
        },
        "classes": scene_classes.breakdown(examples.file_names, images, official),
    }
