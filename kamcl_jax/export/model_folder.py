"""A trained model as a folder of plain files, laid out as Hugging Face's model folders are.

| file                | what is in it                                                           |
|---------------------|-------------------------------------------------------------------------|
| `config.json`       | `model_type`, the training's config, step, package versions, checksums  |
| `model.safetensors` | parameters and statistics, f32, named by their path: `params.text. ...` |
| `vocabulary.json`   | `words` (row i + 1 of the embedding is of word i), `concepts`           |
| `README.md`         | the model card, see `model_card`                                        |
| `tokenizer/`        | the vocabulary of a published model's text encoder, in its own files    |
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import flax
import ml_collections
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from input_pipeline import storage
from kamcl_jax.config import encoders
from kamcl_jax.config.encoders import TOWERS
from kamcl_jax.config.fields import flatten
from kamcl_jax.config.plugins import refuse_code_inside
from kamcl_jax.errors import ExportError
from kamcl_jax.inference.embed import Variables
from kamcl_jax.inference.model import TrainedModel, Words, abstract_variables, assemble
from kamcl_jax.runs import record
from kamcl_jax.runs.folder import (
    EXPORTED_CONFIG,
    EXPORTED_WEIGHTS,
    TOKENIZER,
    write_tokenizer,
    written_tokenizer,
)

FILES = CONFIG, WEIGHTS, VOCABULARY, CARD = (
    EXPORTED_CONFIG,
    EXPORTED_WEIGHTS,
    "vocabulary.json",
    "README.md",
)
MODEL_TYPE, FORMAT = "kamcl", 1
PUBLISHED_TYPES = ("clip", "siglip")
"""What Hugging Face's folders, which have files of the same names, call the published models."""

FIELDS_OF_A_MACHINE = (
    *("data.dir", "data.prepared_dir"),
    *("data.options.captions", "data.options.images"),
)
"""Fields of a config that mean nothing elsewhere, and are not written."""

FIELDS_WITH_A_FILE = (
    *("concepts.stop_words", "image_encoder.pretrained", "text_encoder.pretrained"),
    *("encoders.pretrained", "encoders.vocabulary"),
)
"""Fields of a config that may name a file: its folder is not written."""


def published_fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns a config's leaves under dotted names, without paths of the machine that trained."""
    fields = flatten(config)
    for name in FIELDS_OF_A_MACHINE:
        fields.pop(name, None)
    for name in FIELDS_WITH_A_FILE:
        fields[name] = Path(fields[name]).name
    return fields


def write_file(path: Path, write_content: Callable[[IO[bytes]], object]) -> None:
    """Writes a file that appears under its name, in place of one before, only when it is whole.

    The file's folder is made if it is absent.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with storage.replaced(path) as file:
            write_content(file)
    except OSError as error:  # which may not name the file
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from error


def write_bytes(path: Path, content: bytes | bytearray) -> None:
    """Writes bytes as `write_file` does."""
    write_file(path, lambda file: file.write(content))


def write(folder: Path, model: TrainedModel, card: str) -> None:
    """Writes a model and its card, which is Markdown; files of other names stay as they are."""
    words = model.words
    tensors = {
        name: np.asarray(tensor, order="C")
        for name, tensor in flax.traverse_util.flatten_dict(model.variables, sep=".").items()
    }
    contents = {
        WEIGHTS: save(tensors, {"format": "flax"}),
        VOCABULARY: _json({"words": words.vocabulary, "concepts": words.concepts}),
    }
    config = {
        "model_type": MODEL_TYPE,
        "format": FORMAT,
        "step": model.step,
        "concept_width": words.concept_width,
        "tokenizer": model.tokenizer.identity,
        "training": published_fields(model.config),
        "versions": record.versions(),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    for name, content in contents.items():
        write_bytes(folder / name, content)
    try:
        write_tokenizer(folder, model.tokenizer)
    except OSError as error:
        raise ExportError(f"cannot write {folder / TOKENIZER}: {error.strerror}") from error
    # The config comes after what it has checksums of: one of other weights is refused.
    write_bytes(folder / CONFIG, _json(config))
    write_bytes(folder / CARD, card.encode())


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def read(folder: Path, untrusted: Path | None = None) -> TrainedModel:
    """Reads what `write` has written.

    Encoders that the config names by import path are imported, but never from the folder itself,
    nor from an `untrusted` folder around it that came with it.
    """
    config = _read_json(folder / CONFIG)
    if config.get("model_type") in PUBLISHED_TYPES:
        raise ExportError(
            f"{folder} holds a published {config['model_type']}: say of which preset its weights "
            "are (--weights and --preset, or kamcl_jax.load(path, preset=...)); "
            "docs/published_models.md lists the names"
        )
    if config.get("model_type") != MODEL_TYPE or config.get("format") != FORMAT:
        raise ExportError(
            f"{folder / CONFIG} is of a model_type and format other than {MODEL_TYPE!r}, {FORMAT}"
        )
    vocabulary = _read_json(folder / VOCABULARY)
    _check_contents(folder, config)
    try:
        step, width = config["step"], config["concept_width"]
        training = record.config_of({"config": config["training"]})
        words = Words(vocabulary["words"], vocabulary["concepts"], width)
        for tower in TOWERS:
            field = f"config.{tower}.module"
            refuse_code_inside(untrusted or folder, training[tower].module, field)
        like = abstract_variables(training, words)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"{folder / CONFIG} or {VOCABULARY} lacks an entry or has a wrong one: {error}"
        ) from error
    tokenizer = encoders.tokenizer(training, written_tokenizer(folder))
    model = assemble(step, training, words, _read_weights(folder / WEIGHTS, like), tokenizer)
    if config.get("tokenizer", model.tokenizer.identity) != model.tokenizer.identity:
        raise ExportError(
            f"{folder / TOKENIZER} is not the tokeniser that was exported: it is damaged, or of "
            "another model"
        )
    return model


def _check_contents(folder: Path, config: dict[str, Any]) -> None:
    written = config.get("sha256", {})  # which exports of earlier versions do not have
    for name in (WEIGHTS, VOCABULARY):
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            whole = written.get(name, found) == found
        except (AttributeError, OSError) as error:
            raise ExportError(f"{folder / name} cannot be checked: {error}") from error
        if not whole:
            raise ExportError(
                f"{folder / name} is not what was exported with {CONFIG}: it is damaged, or of "
                "another export"
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise ExportError(f"{path} is no JSON object: {error}") from error


def _read_weights(path: Path, like: Variables) -> Variables:
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{path} is no whole safetensors file: {error}") from error
    expected = _shapes(flax.traverse_util.flatten_dict(like, sep="."))
    differing = sorted(name for name, _ in expected.items() ^ _shapes(tensors).items())
    if differing:
        raise ExportError(
            f"the tensors of {path} do not fit the model that {CONFIG} describes: {differing[0]} "
            "is missing, too much, or of another size or type"
        )
    return flax.traverse_util.unflatten_dict(tensors, sep=".")


def _shapes(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: (tensor.shape, np.dtype(tensor.dtype)) for name, tensor in tensors.items()}
