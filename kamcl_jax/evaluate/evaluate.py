"""Scores the checkpoint of the best validation on the test split and writes the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from input_pipeline.language.texts import equal_text_ids
from input_pipeline.splits.examples import Examples
from kamcl_jax.config import build, recipe
from kamcl_jax.config.build import Experiment
from kamcl_jax.config.encoders import normalisation, with_published_encoders
from kamcl_jax.errors import ConfigError, DamagedCheckpointError
from kamcl_jax.evaluate import report, tables
from kamcl_jax.inference import embed
from kamcl_jax.inference.embed import EncodedSplit, Encoders
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.parallel import hosts
from kamcl_jax.ranking import concept_metrics, metrics
from kamcl_jax.ranking.ranks import Ranks, rank_with_texts
from kamcl_jax.ranking.scores import Array, Embeddings, Scores
from kamcl_jax.runs import folder, record
from kamcl_jax.runs.checkpoints import Checkpoints, first_readable, folder_of, open_checkpoints
from kamcl_jax.runs.record import History
from kamcl_jax.weights import starting_weights


def evaluate(config: ml_collections.ConfigDict | None, workdir: Path) -> dict[str, Any]:
    """Does `report_best` for a run; the config, if None, is the one in the checkpoint."""
    folder.check_shared(workdir)
    with open_checkpoints(workdir) as checkpoints:
        stored = first_readable(reversed(checkpoints.steps), checkpoints.record)
        if config is None:
            config = build.on_these_devices(record.config_of(stored))
        starting_weights.check_frozen_file(config)
        written = folder.written_tokenizer(workdir)
        experiment = build.build(config, trains=False, written=written, with_images=["test"])
        record.check_same_run(experiment, stored)
        encoders = make_encoders(experiment)
        return report_best(experiment, checkpoints, encoders, record.history_of(stored), workdir)


def make_encoders(experiment: Experiment) -> Encoders:
    """Returns the compiled encoders of an experiment."""
    return embed.make_encoders(
        experiment.model,
        experiment.layout,
        recipe.compute_dtype(experiment.config),
        normalisation(experiment.config),
    )


def report_best(
    experiment: Experiment,
    checkpoints: Checkpoints,
    encoders: Encoders,
    history: History,
    workdir: Path,
) -> dict[str, Any]:
    """Scores the best checkpoint, or the latest where none was validated, and writes the report.

    The report goes to the folder `report` in `workdir`. Returns the contents of its metrics.json.
    """
    best, variables = _best(experiment, checkpoints)
    skipped = int(variables.pop("skipped"))
    frozen = experiment.frozen()
    checkpoints.check_frozen(best, frozen, build.source_of_frozen(experiment.config))
    variables = build.whole_variables(experiment.config, variables, frozen)
    return _report(experiment, encoders, variables, history, workdir, step=best, skipped=skipped)


def evaluate_published(
    model: TrainedModel, config: ml_collections.ConfigDict, workdir: Path
) -> dict[str, Any]:
    """Scores a published model, as it is, on the test split of a data set.

    The report goes to the folder `report` in `workdir`. Returns the contents of its metrics.json.

    Args:
      model: From `open_published`.
      config: Its data are those to score on; its encoders do not matter.
      workdir: The folder that takes the report, not that of a run.
    """
    if folder_of(workdir).is_dir():
        raise ConfigError(f"{workdir} holds a run; a published model needs a --workdir of its own")
    folder.check_writable(workdir)
    described = with_published_encoders(config, model.config)
    experiment = build.build(described, trains=False, with_images=["test"])
    return _report(experiment, model.encoders, model.variables, History(), workdir, step=0)


def _report(
    experiment: Experiment,
    encoders: Encoders,
    variables: Any,
    history: History,
    workdir: Path,
    *,
    step: int,
    skipped: int = 0,
) -> dict[str, Any]:
    left_out = list(experiment.data.left_out)
    test, settings = experiment.data.test, experiment.config.evaluation
    encoded = embed.encode(encoders, variables, test, settings.batch_size)
    embeddings = encoded.embeddings
    ranks = rank_test_split(embeddings, test, settings.ties)
    detailed = detailed_metrics(ranks, test, settings.ties)
    knows_concepts = encoded.images.concepts.shape[1] > 0
    if knows_concepts:
        detailed["test"] |= concepts_of_split(encoded, test)
    words = experiment.data.concepts.words
    results = {
        **detailed,
        "val": history.validation_at(step),
        "chance": metrics.chance_metrics(test.image_of_caption),
        "best_step": step,
        "best_epoch": step / experiment.steps_per_epoch,
        "skipped_updates": skipped,
        "left_out_images": {"count": len(left_out), "names": left_out},
        "seconds": history.seconds,
        "concepts": concept_metrics.known_concepts(
            words, encoded.images.concepts, test.image_concepts > 0
        )
        if knows_concepts
        else [],
    }
    written = workdir / "report"
    if hosts.is_first():
        ranks_of_captions = ranks["test_equal_texts"]["t2i"]
        report.write(written, experiment, history, results, embeddings, ranks_of_captions)
    hosts.say(tables.summary(results))
    hosts.say(f"report: {written / 'report.md'}")
    return results


def _best(experiment: Experiment, checkpoints: Checkpoints) -> tuple[int, dict[str, Any]]:
    like, places = experiment.abstract_state, experiment.layout.state

    def read(step: int) -> tuple[int, dict[str, Any]]:
        needed = {**build.retrieving_fields(experiment.config), "skipped": "skipped"}
        return step, checkpoints.restore_fields(step, like, places, needed)

    def tell(error: DamagedCheckpointError) -> None:
        hosts.warn(f"{error}; the next best one takes its place")

    return first_readable(checkpoints.best_first, read, tell)


def score_split(
    encoders: Encoders,
    variables: Any,
    examples: Examples,
    batch_size: int,
    ties: str = "expected",
) -> tuple[dict[str, float], Embeddings]:
    """Encodes a split; returns its retrieval and concept metrics, and its embeddings."""
    encoded = embed.encode(encoders, variables, examples, batch_size)
    recalls = metrics.retrieval_metrics(encoded.embeddings, examples.image_of_caption, ties)
    return {**recalls, **concepts_of_split(encoded, examples)}, encoded.embeddings


def concepts_of_split(encoded: EncodedSplit, examples: Examples) -> dict[str, float]:
    """Returns the `concept_metrics` of a split, by the labels that its own captions give."""
    return concept_metrics.concept_metrics(
        encoded.images.concepts,
        encoded.captions.concepts,
        examples.image_concepts > 0,
        examples.image_of_caption,
    )


def rank_test_split(
    scores: Scores | Array, examples: Examples, ties: str
) -> dict[str, dict[str, Ranks]]:
    """Ranks a split by the official protocol, `test`, and where equal texts count.

    `test_equal_texts` takes every image or caption with the query's text for relevant. Scores and
    ties are those of `rank_both_ways`.
    """
    texts = equal_text_ids(examples.captions)
    official, equal = rank_with_texts(scores, examples.image_of_caption, [None, texts], ties)
    return {"test": official, "test_equal_texts": equal}


def detailed_metrics(
    ranks: Mapping[str, Mapping[str, Ranks]], examples: Examples, ties: str
) -> dict[str, Any]:
    """Returns what a report says of the ranks of `rank_test_split`.

    `test` and `test_equal_texts` are the field's metrics of both protocols, `intervals` their 95 %
    bootstrap intervals over images, and `classes` the official recalls of the scene classes, or
    None where the file names carry no classes.
    """
    images = examples.image_of_caption
    return {
        **{name: metrics.metrics_of_ranks(found, ties) for name, found in ranks.items()},
        "intervals": {
            name: metrics.bootstrap_intervals(found, images) for name, found in ranks.items()
        },
        "classes": metrics.recalls_of_classes(examples.file_names, images, ranks["test"]),
    }
