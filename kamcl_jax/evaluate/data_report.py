"""`--mode=prepare`: prepares a config's data set and says what is in it."""

import json
import sys
from dataclasses import asdict
from typing import Any

import ml_collections
import numpy as np

from input_pipeline.datasets import Prepared
from input_pipeline.language.texts import Texts
from input_pipeline.splits import findings
from input_pipeline.splits.examples import RetrievalData
from input_pipeline.splits.findings import Findings
from input_pipeline.splits.loading import load_prepared
from input_pipeline.storage import write_text
from kamcl_jax.config import fields
from kamcl_jax.config.data import open_data, settings
from kamcl_jax.config.encoders import tokenizer
from kamcl_jax.evaluate.tables import markdown_table

BAR = 50  # characters, of the histogram's longest bar

HEAD = (
    *("split", "images", "captions", "captions an image", "repeated within an image"),
    *("shared by several images", "tokens: median, longest"),
)


def prepare(config: ml_collections.ConfigDict) -> None:
    """Prepares the data set of a config, prints what was found and keeps it as `findings.json`."""
    fields.check_fields(config)
    reading = tokenizer(config)  # before the data, whose preparation takes longer
    prepared = open_data(config)
    data = load_prepared(prepared, settings(config), tokenizer=reading)
    splits = prepared.texts()
    found = {split: findings.examine(texts) for split, texts in splits.items()}
    found["all"] = findings.examine(Texts.joined(splits.values()))
    learnt = _learnt(data)
    print(_as_text(prepared, learnt, found))
    try:
        write_text(prepared.folder / "findings.json", _as_json(prepared, learnt, found))
    except OSError as error:  # prepared by somebody else, or on a disk that is read-only
        print(f"note: findings.json is not written: {error.strerror}", file=sys.stderr)


def _as_json(prepared: Prepared, learnt: dict[str, Any], found: dict[str, Findings]) -> str:
    rows = {}
    for split, one in found.items():
        histogram = findings.histogram(one.token_lengths)
        rows[split] = {**asdict(one), "token_lengths": histogram}
    kept = {
        "splits": rows,
        **learnt,
        "left_out": [asdict(problem) for problem in prepared.left_out],
        "without_caption": prepared.builder.images_without_caption(),
    }
    return json.dumps(kept, indent=2)


def _learnt(data: RetrievalData) -> dict[str, Any]:
    return {
        "trained_images": len(data.train.image_ids),
        "validation_images": len(data.validation.image_ids),
        "words": len(data.vocabulary),
        "concepts": len(data.concepts),
        "training_captions_with_a_concept": float(data.train.word_concepts.any(axis=1).mean()),
    }


def _as_text(prepared: Prepared, learnt: dict[str, Any], found: dict[str, Findings]) -> str:
    rows = [_row(split, one) for split, one in found.items()]
    lines = [
        f"data set {prepared.builder.name}",
        *prepared.builder.sources(),
        "",
        markdown_table(HEAD, rows),
        "",
        "tokens a caption, all splits",
        *_bars(findings.histogram(found["all"].token_lengths)),
        "",
        f"with this config: {learnt['trained_images']} images to train on, "
        f"{learnt['validation_images']} to validate with",
        f"vocabulary: {learnt['words']} words; concepts: {learnt['concepts']}, named by "
        f"{learnt['training_captions_with_a_concept']:.1%} of the training captions",
    ]
    if prepared.left_out:
        lines.append(f"images left out, as they can't be used: {len(prepared.left_out)}")
        lines += [f"  {problem.file_name}: {problem.reason}" for problem in prepared.left_out]
    else:
        lines.append("missing or unreadable images: none")
    if without_caption := prepared.builder.images_without_caption():
        lines.append(findings.count_and_name(without_caption, "without a caption, not used"))
    return "\n".join([*lines, f"prepared in {prepared.folder}"])


def _row(split: str, one: Findings) -> list[str]:
    a_image = str(one.fewest) if one.fewest == one.most else f"{one.fewest} to {one.most}"
    shared = f"{one.shared_captions} ({one.shared_texts} texts)"
    lengths = f"{np.median(one.token_lengths):g}, {one.token_lengths.max()}"
    counts = [str(one.images), str(one.captions), a_image, str(one.repeated_within)]
    return [split, *counts, shared, lengths]


def _bars(histogram: list[tuple[int, int, int]]) -> list[str]:
    largest = max(count for _, _, count in histogram)
    return [
        f"  {first:3d} to {last:3d}  {count:7d}  {'#' * -(-BAR * count // largest)}"
        for first, last, count in histogram
    ]
