"""Loss terms that a config adds by their import path; `docs/extending.md` says what they are."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from kamcl_jax.config import import_path
from kamcl_jax.errors import ConfigError
from kamcl_jax.step.encoding import Encodings
from kamcl_jax.step.objective import ExtraTerm

TAKEN = frozenset(
    {
        "step",
        "epoch",
        "loss",
        "triplet",
        "contrastive",
        "alignment",
        "alignment_weight",
        "false_negatives",
        "gradient_norm",
        "images_per_second",
        "skipped",
    }
)
"""Names of other metrics, which a term cannot have."""


def make(config: ml_collections.ConfigDict) -> tuple[ExtraTerm, ...]:
    """Returns the terms of `config.loss.extra_terms`, in the order of their names.

    Args:
      config: with the fields checked.

    Raises:
      ConfigError: a function cannot be imported.
    """
    terms = config.loss.extra_terms
    return tuple(
        ExtraTerm(
            name,
            import_path.resolve(terms[name].function, _field(name)),
            terms[name].weight,
        )
        for name in sorted(terms)
    )


def check(config: ml_collections.ConfigDict, batch: dict[str, jax.ShapeDtypeStruct]) -> None:
    """Checks the terms' fields, and tries them and their gradients on the shapes of a batch.

    Nothing is computed.

    Args:
      config: as `configs.base` describes it.
      batch: as a step gets it.

    Raises:
      ConfigError: a field cannot be, or a function cannot be imported or differentiated, or
        returns no scalar.
    """
    for name, term in config.loss.extra_terms.items():
        _check_fields(f"config.loss.extra_terms.{name}", name, term)
    size, num_concepts = batch["word_concepts"].shape
    side = config.image_size
    shapes = [(size, config.embedding_size)] * 2 + [(size, num_concepts)] * 2
    encodings: Any = Encodings(*(_floats(shape) for shape in shapes))
    augmented = {**batch, "image": _floats((size, side, side, 3))}
    step = jax.ShapeDtypeStruct((), jnp.int32)
    for term in make(config):
        _try(term, encodings, augmented, step)


def _check_fields(field: str, name: str, term: Any) -> None:
    if name in TAKEN:
        raise ConfigError(f"{field} cannot be called so: there is a metric of that name")
    if not isinstance(term, ml_collections.ConfigDict) or set(term) != {"function", "weight"}:
        raise ConfigError(f"{field} must have the two fields function and weight")
    if not isinstance(term.function, str):
        raise ConfigError(
            f"{field}.function is {term.function!r}; it must be 'package.module:name'"
        )
    weight = term.weight
    if isinstance(weight, bool) or not isinstance(weight, int | float) or math.isnan(weight):
        raise ConfigError(f"{field}.weight is {weight!r}; it must be a number")


def _floats(shape: tuple[int, ...]) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _try(term: ExtraTerm, encodings: Any, batch: Any, step: Any) -> None:
    try:
        jax.eval_shape(jax.value_and_grad(term.function), encodings, encodings, batch, step)
    except Exception as error:  # the function is the user's
        raise ConfigError(
            f"{_field(term.name)} cannot be called with (queries, keys, batch, step) to get a "
            f"differentiable f32[]: {import_path.told(error)}"
        ) from None


def _field(name: str) -> str:
    return f"config.loss.extra_terms.{name}.function"
