"""`--mode=concepts`: the concepts of a data set, from its captions alone."""

import json
from dataclasses import dataclass
from pathlib import Path

import ml_collections
import numpy as np
from matplotlib.figure import Figure

from input_pipeline import datasets
from input_pipeline.language.concepts import Concepts
from input_pipeline.language.texts import Texts
from input_pipeline.language.vocabulary import Vocabulary
from input_pipeline.splits import assembly
from kamcl_jax.config import fields
from kamcl_jax.config.data import open_data, prepared_dir, settings
from kamcl_jax.evaluate.figures import DOTS_PER_INCH
from kamcl_jax.evaluate.tables import markdown_table
from kamcl_jax.runs import folder as run_folder

DRAWN = PRINTED = 40
"""How many concepts are in the picture and in the terminal."""

HEAD = ("", "concept", "repeated in all", "images that show it", "captions that name it")


@dataclass(frozen=True)
class ConceptCounts:
    """The C concepts of the N training images, counted."""

    vocabulary: Vocabulary
    concepts: Concepts
    labels: np.ndarray  # f32[N, C], the soft labels of the training images
    images: np.ndarray  # i64[C], how many training images have a label for the concept
    captions: np.ndarray  # i64[C], how many training captions name the concept
    covered: float  # the share of the training captions that name at least one
    labelled: float  # the share of the training images that have at least one


def report(config: ml_collections.ConfigDict, folder: Path | None) -> None:
    """Finds the concepts that a config trains with, prints and saves them.

    No image needs to be there, unless the config leaves out those that can't be read.

    It writes `concepts.json`, `concepts.md` (all of them with their counts), `concepts.png` (those
    that most captions name), `vocabulary.json` and `labels.jsonl` (each training image's soft
    labels) into the folder, by default `concepts` among the prepared data.
    """
    fields.check_fields(config)
    if folder is not None:
        run_folder.check_writable(folder)
    data = config.data
    if data.bad_images == "skip":  # which ones are left out is known when they have been read
        splits = open_data(config).texts()
    else:
        splits = datasets.read_texts(data.name, data.dir, **data.options)
    chosen = settings(config)
    placement = assembly.place(splits, chosen)
    vocabulary, concepts = assembly.learn(placement, chosen)
    train = placement.parts["train"]
    counts = count(train, vocabulary, concepts)
    folder = folder or prepared_dir(config) / data.name / "concepts"
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, train, counts)
    print(summary(counts, PRINTED))
    print(f"saved in {folder}: concepts.md, concepts.png, concepts.json, labels.jsonl")


def count(train: Texts, vocabulary: Vocabulary, concepts: Concepts) -> ConceptCounts:
    """Counts how often the training images and their captions show each concept."""
    labels = concepts.image_labels(train.captions)
    named = [frozenset(concepts.columns_of(tokens)) for tokens in train.tokens]
    columns = [column for caption in named for column in caption]
    return ConceptCounts(
        vocabulary,
        concepts,
        labels,
        images=np.count_nonzero(labels, axis=0),
        captions=np.bincount(np.array(columns, np.int64), minlength=len(concepts)),
        covered=float(np.mean([bool(caption) for caption in named])),
        labelled=float(labels.any(axis=1).mean()),
    )


def summary(counts: ConceptCounts, rows: int | None = None) -> str:
    """Returns the table of the first `rows` concepts, or of all, and the shares under it."""
    concepts = counts.concepts
    cells = [
        [str(place + 1), word, str(concepts.totals[place]), str(images), str(captions)]
        for place, (word, images, captions) in enumerate(
            zip(concepts.words, counts.images, counts.captions, strict=True)
        )
    ]
    lines = [markdown_table(HEAD, cells[:rows], left=2)]
    if more := len(cells[rows or len(cells) :]):
        lines.append(f"... and {more} more")
    shares = (
        f"{len(concepts)} concepts out of a vocabulary of {len(counts.vocabulary)} words; "
        f"{counts.covered:.1%} of the training captions name one, {counts.labelled:.1%} of the "
        "training images have one"
    )
    return "\n".join([*lines, "", shares])


def _write(folder: Path, train: Texts, counts: ConceptCounts) -> None:
    words = counts.concepts.words
    found = {
        "concepts": words,
        "repeated_in_all": counts.concepts.totals,
        "images": counts.images.tolist(),
        "captions": counts.captions.tolist(),
        "share_of_training_captions": counts.covered,
        "share_of_training_images": counts.labelled,
    }
    (folder / "concepts.json").write_text(
        json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8"
    )
    (folder / "vocabulary.json").write_text(counts.vocabulary.to_json() + "\n", "utf-8")
    picture = "![the concepts that most captions name](concepts.png)"
    (folder / "concepts.md").write_text(f"# Concepts\n\n{picture}\n\n{summary(counts)}\n", "utf-8")
    with (folder / "labels.jsonl").open("w", encoding="utf-8") as lines:
        for name, labels in zip(train.file_names, counts.labels, strict=True):
            shown = {words[column]: float(labels[column]) for column in np.flatnonzero(labels)}
            line = {"filename": name, "concepts": shown}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    _draw(folder / "concepts.png", counts)


def _draw(path: Path, counts: ConceptCounts) -> None:
    drawn = drawn_concepts(counts)
    words = [counts.concepts.words[concept] for concept in drawn]
    places = np.arange(len(words))
    figure = Figure(figsize=(8, 1.5 + 0.24 * len(words)), layout="constrained")
    axis = figure.subplots()
    axis.barh(places - 0.2, counts.captions[drawn], 0.4, label="captions that name it")
    axis.barh(places + 0.2, counts.images[drawn], 0.4, label="images that show it")
    axis.set_yticks(places, words)
    axis.invert_yaxis()
    axis.margins(y=0.01)
    axis.grid(axis="x", alpha=0.3)
    axis.set_title(
        f"the {len(words)} of {len(counts.concepts)} concepts that most training captions name; "
        f"{counts.covered:.1%} of the captions name one",
        fontsize=10,
    )
    axis.legend(loc="lower right")
    figure.savefig(path, dpi=DOTS_PER_INCH)


def drawn_concepts(counts: ConceptCounts) -> np.ndarray:
    """Returns the concepts of the picture: those that most captions name, then most images show."""
    return np.lexsort((-counts.images, -counts.captions))[:DRAWN]
