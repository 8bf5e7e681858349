"""The report of a run: metrics.json, pictures and report.md."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from input_pipeline.language.texts import equal_text_ids, num_shared_captions
from input_pipeline.splits.examples import Examples
from kamcl_jax.config import fields as config_check
from kamcl_jax.config.build import Experiment
from kamcl_jax.evaluate import figures, tables
from kamcl_jax.evaluate.figures import Retrieved
from kamcl_jax.ranking import bootstrap, top_k
from kamcl_jax.ranking import ranks as ranking
from kamcl_jax.ranking.scores import Embeddings
from kamcl_jax.runs.record import History

QUERIES_SHOWN = 8
TIES = {
    "expected": "tied scores stand in random order, so recalls and ranks are expected ones",
    "argsort": "ties stand as NumPy's sort leaves them, as in the KAMCL release",
}
CURVES = """
## Curves

![losses](losses.png)

![validation recalls](recalls.png)
"""
CLASSES = """
## Scene classes

Test recalls of the queries of each class, the class as the file names carry it; each query
searches all images or captions.

{table}

![mR of each scene class](classes.png)
"""


def write(
    folder: Path,
    experiment: Experiment,
    history: History,
    results: dict[str, Any],
    embeddings: Embeddings,
) -> None:
    """Writes the report.

    Args:
      folder: made if absent; files in it are replaced.
      experiment: what was trained.
      history: of the training.
      results: as `training.train` returns them.
      embeddings: of the test split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(results, indent=2) + "\n")
    test = experiment.data.test
    if history.validation:
        figures.loss_curves(
            folder / "losses.png",
            history.train,
            experiment.steps_per_epoch,
            experiment.config.schedule.alignment_from_epoch,
            sorted(experiment.config.loss.extra_terms),
        )
        figures.recall_curves(folder / "recalls.png", history.validation, results["chance"]["mR"])
    queries = queries_to_show(len(test.captions), experiment.config.seed)
    retrieved = retrieve(embeddings, test, queries, experiment.config.evaluation.ties)
    figures.contact_sheet(folder / "retrieved.png", test, retrieved)
    if results["classes"]:
        figures.class_bars(folder / "classes.png", results["classes"], results["test"]["mR"])
    (folder / "report.md").write_text(document(experiment, history, results))


def queries_to_show(num_captions: int, seed: int) -> list[int]:
    """Returns captions for the contact sheet, drawn at random once a seed: not the best ones."""
    generator = np.random.Generator(np.random.PCG64([seed, num_captions]))
    count = min(QUERIES_SHOWN, num_captions)
    return sorted(generator.choice(num_captions, count, replace=False).tolist())


def retrieve(
    embeddings: Embeddings, examples: Examples, queries: Sequence[int], ties: str
) -> list[Retrieved]:
    """Finds the images nearest to some captions.

    Args:
      embeddings: of the split.
      examples: the split.
      queries: rows of the captions.
      ties: as the report's scores count them; among the nearest, the lower row comes first.

    Raises:
      ValueError: `ties` is not one of `ranking.TIES`.
    """
    rows = np.asarray(queries)
    asked = Embeddings(embeddings.images, embeddings.captions[rows])
    ranks = ranking.text_to_image_ranks(asked, examples.image_of_caption[rows], ties).expected()
    scores, images = top_k.top_k(asked.captions, asked.images, figures.TOP)
    return [
        Retrieved(query, images[row].tolist(), scores[row].tolist(), float(ranks[row]))
        for row, query in enumerate(queries)
    ]


def document(experiment: Experiment, history: History, results: dict[str, Any]) -> str:
    """Returns the text of report.md."""
    config, data = experiment.config, experiment.data
    ratio = results["test"]["mR"] / results["chance"]["mR"]
    epochs = max([results["best_epoch"], *(row["epoch"] for row in history.validation)])
    from_epoch = config.schedule.alignment_from_epoch
    step_two = f"epoch {from_epoch + 1}" if from_epoch < epochs else "not reached"
    fields = "\n".join(
        f"| `{name}` | `{value!r}` |" for name, value in config_check.flatten(config).items()
    )
    return f"""# KAMCL on `{config.data.name}`

{_origin(results)} Recalls in percent; {TIES[config.evaluation.ties]};
the rank of an image is that of the best of its captions.

{tables.scores(results)}

The test mR is {ratio:.1f} times chance. {_shared_texts(data.test)}

95 % intervals, from {bootstrap.RESAMPLES} resamples of the test images with their captions; all
images and captions stay searched. They say how much a score hangs on which images were tested,
not how much another training would change it.

{tables.intervals(results)}

| | |
|---|---|
| images: train / validation / test | {_counts(data, "images")} |
| captions: train / validation / test | {_counts(data, "captions")} |
| words, concepts | {len(data.vocabulary)}, {len(data.concepts.words)} |
| steps an epoch, batch | {experiment.steps_per_epoch}, {config.batch_size} |
| step 2 of the schedule (concept alignment) from | {step_two} |
| training and validation took | {history.seconds:.0f} s |
{CURVES if history.validation else ""}{_classes(results)}
## Queries

Captions of the test split drawn at random.

![captions and the images they retrieve](retrieved.png)

## Config

| field | value |
|---|---|
{fields}
"""


def _origin(results: dict[str, Any]) -> str:
    if results["val"] is None:
        return f"Scores of weights from another program, after step {results['best_step']}."
    return (
        "Scores of the checkpoint with the best validation mR "
        f"(after epoch {results['best_epoch']:.3g}) on\nsplits that it was not trained on."
    )


def _shared_texts(test: Examples) -> str:
    """Returns the sentence on captions of different images that say the same."""
    images = test.image_of_caption
    shared = num_shared_captions(equal_text_ids(test.captions), images)
    return f"""{shared or "None"} of the {len(images)} test captions share their text
with a caption of another image; where equal texts count, an image and a caption match if the
image has a caption of that text."""


def _classes(results: dict[str, Any]) -> str:
    if not results["classes"]:
        return ""
    return CLASSES.format(table=tables.classes(results["classes"]))


def _counts(data: Any, field: str) -> str:
    return " / ".join(
        str(len(getattr(split, field))) for split in (data.train, data.validation, data.test)
    )
