"""What travels with a checkpoint beside the state, so that it can be used alone."""

import dataclasses
import importlib.metadata
import sys
from typing import Any

import ml_collections

from configs import base
from input_pipeline.splits.findings import count_and_name
from kamcl_jax.config import fields
from kamcl_jax.config.build import Experiment
from kamcl_jax.errors import ConfigError
from kamcl_jax.parallel import hosts
from kamcl_jax.runs.history import History

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml_collections")
FINGERPRINT = "data fingerprint"
LEFT_OUT = "left out images"


def make(experiment: Experiment, history: History) -> dict[str, Any]:
    """Returns the record: config, history, vocabulary, concepts, data, package versions."""
    return {
        "steps_per_epoch": experiment.steps_per_epoch,
        "config": fields.flatten(experiment.config),
        "history": dataclasses.asdict(history),
        FINGERPRINT: experiment.data.fingerprint,
        LEFT_OUT: list(experiment.data.left_out),
        "versions": versions(),
        **_of_data(experiment),
    }


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that compute and store."""
    installed = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": sys.version.split()[0], **installed}


def check(experiment: Experiment, record: dict[str, Any]) -> None:
    """Refuses a checkpoint of another config or of other captions.

    Raises:
      ConfigError: says what differs.
    """
    fields.check_against_checkpoint(experiment.config, record["config"])
    for name, now in _of_data(experiment).items():
        if record[name] != now:
            changed = f"the data's {name} changed since the checkpoint was written"
            raise ConfigError(changed + _lost_images(experiment, record))
    if record[FINGERPRINT] != experiment.data.fingerprint:
        hosts.warn(
            "the data were prepared from other files than the checkpoint's (images may have "
            f"changed); the training captions are the same{_lost_images(experiment, record)}."
        )


def _lost_images(experiment: Experiment, record: dict[str, Any]) -> str:
    """Names the images that were used when the checkpoint was written, but can't be used now."""
    before = record.get(LEFT_OUT, ())
    lost = [name for name in experiment.data.left_out if name not in before]
    what = "used at that time can't be used now"
    return f": {count_and_name(lost, what)}" if lost else ""


def _of_data(experiment: Experiment) -> dict[str, Any]:
    """What of the data a checkpoint depends on: the words, and which pairs a step shows."""
    data = experiment.data
    return {
        "vocabulary": list(data.vocabulary.words),
        "concepts": list(data.concepts.words),
        "concept_width": data.num_concepts,
        "training captions": data.training_captions,
    }


def config_of(record: dict[str, Any]) -> ml_collections.ConfigDict:
    """Returns the config that a checkpoint was trained with.

    Fields that are newer than the checkpoint have their default: what was done before them.
    """
    config = base.get_config()
    for name, value in record["config"].items():
        *groups, field = name.split(".")
        group = config
        for part in groups:
            if part not in group:  # of an option or a loss term of the user's
                group[part] = ml_collections.ConfigDict()
            group = group[part]
        group[field] = value
    return config


def history_of(record: dict[str, Any]) -> History:
    """Returns the history that travels with a checkpoint."""
    known = {field.name for field in dataclasses.fields(History)}
    return History(**{name: rows for name, rows in record["history"].items() if name in known})
