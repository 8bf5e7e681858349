"""What travels with a checkpoint beside the state, so that it can be used alone."""

import dataclasses
import importlib.metadata
import sys
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from configs import base
from input_pipeline.splits.findings import count_and_name
from kamcl_jax.config import fields
from kamcl_jax.config.build import Experiment
from kamcl_jax.errors import ConfigError
from kamcl_jax.parallel import hosts
from kamcl_jax.step.state import TrainState

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml_collections")
FINGERPRINT = "data fingerprint"
LEFT_OUT = "left out images"
TOKENIZER = "tokenizer"


@dataclasses.dataclass
class History:
    """The metrics over training that a run's curves are drawn from.

    Attributes:
      train: The means of the step's metrics over each logging interval, with `step` and `epoch`
        (the epochs that have passed, with a fraction).
      validation: The metrics of each validation, with `step` and `epoch`.
      pending: The metrics of the steps in the logging interval that has not ended yet.
      seconds: The time spent in training and validation so far.
    """

    train: list[dict[str, float]] = dataclasses.field(default_factory=list)
    validation: list[dict[str, float]] = dataclasses.field(default_factory=list)
    pending: list[dict[str, float]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def validation_at(self, step: int) -> dict[str, float] | None:
        """Returns the validation metrics of a step, without `step` and `epoch`.

        The result is None if there was no validation then, as for weights of another program.
        """
        for row in self.validation:
            if row["step"] == step:
                return {name: value for name, value in row.items() if name not in ("step", "epoch")}
        return None


def make(experiment: Experiment, history: History) -> dict[str, Any]:
    """Returns the record: config, history, vocabulary, concepts, data and package versions."""
    return {
        "steps_per_epoch": experiment.steps_per_epoch,
        "config": fields.flatten(experiment.config),
        "history": dataclasses.asdict(history),
        FINGERPRINT: experiment.data.fingerprint,
        LEFT_OUT: list(experiment.data.left_out),
        TOKENIZER: experiment.data.tokenizer.identity,
        "versions": versions(),
        **_what_steps_depend_on(experiment),
    }


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that compute and store."""
    installed = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": sys.version.split()[0], **installed}


def check_same_run(experiment: Experiment, record: dict[str, Any]) -> None:
    """Raises a `ConfigError` if the record is of another config or of other captions."""
    fields.check_against_checkpoint(experiment.config, record["config"])
    for name, now in _what_steps_depend_on(experiment).items():
        if record[name] != now:
            changed = f"the data's {name} changed since the checkpoint was written"
            raise ConfigError(changed + _lost_images(experiment, record))
    # A record of an earlier version is of a model that reads the words of its vocabulary.
    tokenizer = experiment.data.tokenizer.identity
    if record.get(TOKENIZER, tokenizer) != tokenizer:
        raise ConfigError(
            "the text encoder's tokeniser is another than the checkpoint's: "
            f"{record[TOKENIZER]} there, {tokenizer} now"
        )
    if record[FINGERPRINT] != experiment.data.fingerprint:
        hosts.warn(
            "the data were prepared from other files than the checkpoint's (images may have "
            f"changed); the training captions are the same{_lost_images(experiment, record)}."
        )


def _lost_images(experiment: Experiment, record: dict[str, Any]) -> str:
    # A record of an earlier version does not say which were left out then.
    before = record.get(LEFT_OUT, experiment.data.left_out)
    lost = [name for name in experiment.data.left_out if name not in before]
    what = "used at that time can't be used now"
    return f": {count_and_name(lost, what)}" if lost else ""


def _what_steps_depend_on(experiment: Experiment) -> dict[str, Any]:
    data = experiment.data
    return {
        "vocabulary": list(data.vocabulary.words),
        "concepts": list(data.concepts.words),
        "concept_width": data.num_concepts,
        "training captions": data.training_captions,
    }


def config_of(record: dict[str, Any]) -> ml_collections.ConfigDict:
    """Returns the config that a checkpoint was trained with.

    Fields that are newer than the checkpoint get their default, which is what was done before.
    """
    config = base.get_config()
    for name, value in record["config"].items():
        *groups, field = name.split(".")
        group = config
        for part in groups:
            if part not in group:  # an option or a loss term that the user has added
                group[part] = ml_collections.ConfigDict()
            group = group[part]
        group[field] = value
    return config


def history_of(record: dict[str, Any]) -> History:
    """Returns the history that travels with a checkpoint."""
    known = {field.name for field in dataclasses.fields(History)}
    return History(**{name: rows for name, rows in record["history"].items() if name in known})


def sums_of_bits(state: TrainState | dict[str, Any]) -> dict[str, int]:
    """Returns a sum of the bits of each of a state's arrays, modulo 2**32.

    Each word counts an odd number of times that depends on its place, so that a change of any one
    is found, and two that changed places are. The sum depends neither on the order of summation
    nor on the devices. The state may be whole, or some of its fields by name.
    """
    fields = state if isinstance(state, dict) else vars(state)
    leaves = jax.tree_util.tree_leaves_with_path(dict(fields))
    sums = jax.device_get(_sums([leaf for _, leaf in leaves]))
    names = [f"{path[0].key}{jax.tree_util.keystr(path[1:])}" for path, _ in leaves]
    return {name: int(value) for name, value in zip(names, sums, strict=True)}


@jax.jit
def _sums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_sum(leaf) for leaf in leaves]


def _sum(leaf: jax.Array) -> jax.Array:
    words = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    place, stride = jnp.uint32(0), 1
    for axis in reversed(range(leaf.ndim)):
        place += jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= leaf.shape[axis]
    return jnp.sum(words * (2 * place + 1), dtype=jnp.uint32)
