"""The report of a run: metrics.json, pictures and report.md."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from PIL import Image

from input_pipeline import datasets
from input_pipeline.images import reader
from input_pipeline.language.texts import equal_text_ids, num_shared_captions
from input_pipeline.splits.examples import Examples
from input_pipeline.splits.findings import count_and_name
from kamcl_jax.config.build import Experiment
from kamcl_jax.config.data import prepared_dir
from kamcl_jax.config.fields import flatten
from kamcl_jax.evaluate import figures, tables
from kamcl_jax.evaluate.figures import Picture, Retrieved
from kamcl_jax.ranking.metrics import RESAMPLES
from kamcl_jax.ranking.ranks import Ranks
from kamcl_jax.ranking.scores import Embeddings
from kamcl_jax.ranking.top_k import top_k
from kamcl_jax.runs.record import History

QUERIES_SHOWN = 8
CONCEPTS_SHOWN = 10
"""How many of the concepts that are known best are shown, and how many of those known worst."""
FEWEST_IMAGES = 10
"""A concept is among them if this many test images have it: of fewer, its score is noise."""
THUMBNAIL = (2 * figures.DOTS_PER_INCH, 2 * figures.DOTS_PER_INCH)
"""The width and height in pixels, at most, that images are drawn with."""

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
CONCEPTS = """
## Concepts

How well the concepts of a held-out image are known, from the image itself and from each of its
captions alone: the average precision over images or captions, in percent, averaged over the
concepts that some images have and some have not. An image has a concept if its own captions repeat
the word. A model that predicts the same for all scores the base rate, the share that has the
concept.

{table}

{known}
"""
KNOWN = """The concepts of at least {fewest} test images whose average precision is highest:

{best}

And those whose average precision is lowest, the lowest last:

{worst}"""
FEW = "No concept is in {fewest} test images or more, so none is listed by itself."


def write(
    folder: Path,
    experiment: Experiment,
    history: History,
    results: dict[str, Any],
    embeddings: Embeddings,
    ranks_of_captions: Ranks,
) -> None:
    """Writes the report into a folder, which is made if absent; files in it are replaced.

    Args:
      folder: The folder.
      experiment: What was trained.
      history: The history of the training.
      results: What metrics.json is to contain.
      embeddings: The embeddings of the test split.
      ranks_of_captions: How the test captions rank images, where equal texts count.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(results, indent=2) + "\n")
    config, test = experiment.config, experiment.data.test
    if history.validation:
        figures.loss_curves(
            folder / "losses.png",
            history.train,
            experiment.steps_per_epoch,
            config.schedule.alignment_from_epoch,
            sorted(config.loss.extra_terms),
        )
        figures.recall_curves(folder / "recalls.png", history.validation, results["chance"]["mR"])
    captions = captions_to_show(test.captions, config.seed)
    retrieved = retrieve(embeddings, test, captions, ranks_of_captions)
    figures.contact_sheet(folder / "retrieved.png", stored_images(config, test), retrieved)
    if results["classes"]:
        figures.class_bars(folder / "classes.png", results["classes"], results["test"]["mR"])
    (folder / "report.md").write_text(document(experiment, history, results))


def captions_to_show(captions: Sequence[str], seed: int) -> list[int]:
    """Returns rows of captions of different texts, drawn at random once a seed: not the best."""
    generator = np.random.Generator(np.random.PCG64([seed, len(captions)]))
    _, rows = np.unique(equal_text_ids(captions), return_index=True)
    return sorted(generator.choice(rows, min(QUERIES_SHOWN, len(rows)), replace=False).tolist())


def retrieve(
    embeddings: Embeddings, examples: Examples, captions: Sequence[int], ranks: Ranks
) -> list[Retrieved]:
    """Finds the images that the captions in some rows retrieve; of equals, the lower row is first.

    `ranks` says how all captions of the split rank the images, where equal texts count.
    """
    texts, expected = equal_text_ids(examples.captions), ranks.expected()
    found = top_k(embeddings.captions[np.asarray(captions)], embeddings.images, figures.TOP)
    return [
        Retrieved(
            examples.captions[caption],
            images.tolist(),
            scores.tolist(),
            np.isin(images, examples.image_of_caption[texts == texts[caption]]).tolist(),
            float(expected[caption]),
        )
        for caption, scores, images in zip(captions, *found, strict=True)
    ]


def stored_images(config: ml_collections.ConfigDict, examples: Examples) -> Picture:
    """Returns what reads a split's images as stored, larger than the model sees them."""
    data = config.data
    prepared = datasets.open_prepared(
        data.name,
        data.dir,
        prepared_dir(config),
        bad_images=data.bad_images,
        **data.options,
    )
    names = [name for texts in prepared.texts().values() for name in texts.file_names]
    rows = {name: row for row, name in enumerate(names)}

    def picture(image: int) -> Image.Image:
        stored = prepared.encoded_image(rows[examples.file_names[image]])
        thumbnail = reader.read_rgb(stored.encoded)
        thumbnail.thumbnail(THUMBNAIL)
        return thumbnail

    return picture


def document(experiment: Experiment, history: History, results: dict[str, Any]) -> str:
    """Returns the text of report.md."""
    config, data = experiment.config, experiment.data
    ratio = results["test"]["mR"] / results["chance"]["mR"]
    epochs = max([results["best_epoch"], *(row["epoch"] for row in history.validation)])
    from_epoch = config.schedule.alignment_from_epoch
    step_two = f"epoch {from_epoch + 1}" if from_epoch < epochs else "not reached"
    fields = "\n".join(f"| `{name}` | `{value!r}` |" for name, value in flatten(config).items())
    return f"""# KAMCL on `{config.data.name}`

{_origin(config, results)} Recalls in percent; {TIES[config.evaluation.ties]};
the rank of an image is that of the best of its captions.

{tables.scores(results)}

The test mR is {ratio:.1f} times chance. {_shared_texts(data.test)}

95 % intervals, from {RESAMPLES} resamples of the test images with their captions; all
images and captions stay searched. They say how much a score hangs on which images were tested,
not how much another training would change it.

{tables.intervals(results)}

| | |
|---|---|
| images: train / validation / test | {_counts(data, "images")} |
| captions: train / validation / test | {_counts(data, "captions")} |
{_left_out(data)}| words, concepts | {len(data.vocabulary)}, {len(data.concepts.words)} |
| steps an epoch, batch | {experiment.steps_per_epoch}, {config.batch_size} |
| step 2 of the schedule (concept alignment) from | {step_two} |
| training and validation took | {history.seconds:.0f} s |
{CURVES if history.validation else ""}{_classes(results)}{_concepts(results)}
## Queries

Captions of the test split drawn at random. An image matches if it has a caption of that text.

![captions and the images they retrieve](retrieved.png)

## Config

| field | value |
|---|---|
{fields}
"""


def _origin(config: ml_collections.ConfigDict, results: dict[str, Any]) -> str:
    if config.encoders.preset and not results["best_step"]:
        weights = Path(config.encoders.pretrained).name
        return (
            f"Scores of the published weights `{weights}` ({config.encoders.preset}), as they are."
        )
    if results["val"] is None:
        return f"Scores of weights from another program, after step {results['best_step']}."
    return (
        "Scores of the checkpoint with the best validation mR "
        f"(after epoch {results['best_epoch']:.3g}) on\nsplits that it was not trained on."
    )


def _shared_texts(test: Examples) -> str:
    images = test.image_of_caption
    shared = num_shared_captions(equal_text_ids(test.captions), images)
    return f"""{shared or "None"} of the {len(images)} test captions share their text
with a caption of another image; where equal texts count, an image and a caption match if the
image has a caption of that text."""


def _left_out(data: Any) -> str:
    if not data.left_out:
        return ""
    images = count_and_name(data.left_out, "that can't be used")
    return f"| left out | {images} |\n"


def _classes(results: dict[str, Any]) -> str:
    if not results["classes"]:
        return ""
    return CLASSES.format(table=tables.classes(results["classes"]))


def _concepts(results: dict[str, Any]) -> str:
    table = tables.concepts(results)
    return CONCEPTS.format(table=table, known=_known(results["concepts"])) if table else ""


def _known(rows: Sequence[dict[str, Any]]) -> str:
    frequent = [row for row in rows if row["images"] >= FEWEST_IMAGES]
    if not frequent:
        return FEW.format(fewest=FEWEST_IMAGES)
    best, others = frequent[:CONCEPTS_SHOWN], frequent[CONCEPTS_SHOWN:]
    return KNOWN.format(
        fewest=FEWEST_IMAGES,
        best=tables.known_concepts(best),
        worst=tables.known_concepts(others[-CONCEPTS_SHOWN:]) if others else "There are no others.",
    )


def _counts(data: Any, field: str) -> str:
    return " / ".join(
        str(len(getattr(split, field))) for split in (data.train, data.validation, data.test)
    )
