"""A trained model as a folder of plain files, laid out as Hugging Face's model folders are.

| file                | what is in it                                                          |
|---------------------|------------------------------------------------------------------------|
| `config.json`       | `model_type`, the training's config, step, package versions, checksums  |
| `model.safetensors` | parameters and statistics, f32, named by their path: `params.text. ...` |
| `vocabulary.json`   | `words` (row i + 1 of the embedding is of word i), `concepts`           |
| `README.md`         | the model card, see `model_card`                                        |
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import flax
import ml_collections
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from input_pipeline.errors import DataError
from input_pipeline.language.vocabulary import Vocabulary
from kamcl_jax.config import fields as config_check
from kamcl_jax.config.plugins import TOWERS, refuse_code_inside
from kamcl_jax.errors import ExportError
from kamcl_jax.export import whole_files
from kamcl_jax.inference import model as trained_model
from kamcl_jax.inference.embed import Variables
from kamcl_jax.inference.model import TrainedModel, Words
from kamcl_jax.runs import record

FILES = CONFIG, WEIGHTS, VOCABULARY, CARD = (
    "config.json",
    "model.safetensors",
    "vocabulary.json",
    "README.md",
)
MODEL_TYPE, FORMAT = "kamcl", 1
FIELDS_OF_A_MACHINE = (
    "data.dir",
    "data.prepared_dir",
    "data.options.captions",
    "data.options.images",
)
"""Fields of a config that mean nothing elsewhere, and are not written."""

FIELDS_WITH_A_FILE = (
    "concepts.stop_words",
    "image_encoder.pretrained",
    "text_encoder.pretrained",
)
"""Fields of a config whose last part says enough."""


def is_one(folder: Path) -> bool:
    """Returns whether a folder looks like one that `write` has written."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def published_fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns a config's leaves under dotted names, without paths of the machine that trained.

    Args:
      config: of the training.
    """
    fields = config_check.flatten(config)
    for name in FIELDS_OF_A_MACHINE:
        fields.pop(name, None)
    for name in FIELDS_WITH_A_FILE:
        fields[name] = Path(fields[name]).name
    return fields


def write(folder: Path, model: TrainedModel, card: str) -> None:
    """Writes a model.

    Files of these names are replaced, each of them whole or not at all; others stay.

    Args:
      folder: made if absent.
      model: to write.
      card: Markdown of the model card.

    Raises:
      ExportError: a file cannot be written.
    """
    words = model.words
    tensors = {
        name: np.asarray(tensor, order="C")
        for name, tensor in flax.traverse_util.flatten_dict(model.variables, sep=".").items()
    }
    vocabulary = {"words": words.vocabulary, "concepts": words.concepts}
    contents = {
        WEIGHTS: save(tensors, {"format": "flax"}),
        VOCABULARY: _json(vocabulary).encode(),
    }
    config = {
        "model_type": MODEL_TYPE,
        "format": FORMAT,
        "step": model.step,
        "concept_width": words.concept_width,
        "training": published_fields(model.config),
        "versions": record.versions(),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    for name, content in contents.items():
        whole_files.write_bytes(folder / name, content)
    # After them: a folder without it is none, and one that belongs to other weights is refused.
    whole_files.write_text(folder / CONFIG, _json(config))
    whole_files.write_text(folder / CARD, card)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read(folder: Path, came_in: Path | None = None) -> TrainedModel:
    """Reads what `write` has written.

    Encoders that the config names by import path are imported, but never from the folder itself.

    Args:
      folder: of the model.
      came_in: a folder around it that came with it, from which nothing is imported either.

    Raises:
      ExportError: a file is missing, damaged, or of another model than the config describes, or
        the model brings code.
    """
    config, vocabulary = _read_json(folder / CONFIG), _read_json(folder / VOCABULARY)
    if config.get("model_type") != MODEL_TYPE or config.get("format") != FORMAT:
        raise ExportError(
            f"{folder / CONFIG} is of a model_type and format other than {MODEL_TYPE!r}, {FORMAT}"
        )
    _check_contents(folder, config)
    try:
        step = int(config["step"])
        training = record.config_of({"config": config["training"]})
        words = _words(vocabulary, int(config["concept_width"]))
        for tower in TOWERS:
            field = f"config.{tower}.module"
            refuse_code_inside(came_in or folder, training[tower].module, field)
        like = trained_model.abstract_variables(training, words)
    except (AttributeError, DataError, KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"{folder / CONFIG} or {VOCABULARY} lacks an entry or has a wrong one: {error}"
        ) from error
    return trained_model.assemble(step, training, words, _read_weights(folder / WEIGHTS, like))


def _check_contents(folder: Path, config: dict[str, Any]) -> None:
    """Compares weights and words with what was written, where the config has checksums."""
    checksums = config.get("sha256", {})
    if not isinstance(checksums, dict):
        raise ExportError(f"the entry sha256 of {folder / CONFIG} is no JSON object")
    for name in (WEIGHTS, VOCABULARY):
        written = checksums.get(name)
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ExportError(f"cannot read {folder / name}: {error.strerror}") from error
        if written not in (None, found):
            raise ExportError(
                f"{folder / name} is not what was exported with {CONFIG}: it is damaged, or of "
                "another export"
            )


def _words(listed: dict[str, Any], concept_width: int) -> Words:
    words = Words(_strings(listed["words"]), _strings(listed["concepts"]), concept_width)
    Vocabulary(words.vocabulary)  # raises if it is none
    if len(words.concepts) > concept_width:
        raise ValueError(f"there are more concepts than the concept_width {concept_width}")
    return words


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ExportError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ExportError(f"{path} is no JSON object")
    return value


def _strings(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("words and concepts must be lists of strings")
    return values


def _read_weights(path: Path, like: Variables) -> Variables:
    flat = flax.traverse_util.flatten_dict(like, sep=".")
    try:
        with safe_open(path, framework="numpy") as file:
            found = set(file.keys())
            if found != flat.keys():
                name = min(found ^ flat.keys())
                which = "lacks" if name in flat else "has, unexpectedly,"
                raise ExportError(f"{path} {which} the tensor {name}")
            tensors = {name: file.get_tensor(name) for name in flat}
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{path} is no whole safetensors file: {error}") from error
    for name, tensor in tensors.items():
        expected = flat[name]
        if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            raise ExportError(
                f"the tensor {name} of {path} is {tensor.dtype}{list(tensor.shape)}, not "
                f"{expected.dtype}{list(expected.shape)}"
            )
    return flax.traverse_util.unflatten_dict(tensors, sep=".")
