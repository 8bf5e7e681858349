"""What a config names as 'package.module:Name': how it is imported, and losses of your own.

docs/extending.md says what losses have to be. They are tried on the shapes of a batch before
anything is prepared or compiled; what cannot be used raises a `ConfigError` in one sentence.
"""

import importlib
import importlib.util
import inspect
import math
import operator
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections

from kamcl_jax.errors import ConfigError
from kamcl_jax.step.objective import Comparison, LossTerm

RESERVED_METRICS = frozenset(
    {
        "alignment",
        "alignment_weight",
        "batch_contrastive",
        "bias",
        "contrastive",
        "epoch",
        "false_negatives",
        "gradient_norm",
        "images_per_second",
        "loss",
        "sigmoid",
        "skipped",
        "step",
        "temperature",
        "triplet",
    }
)
"""The names of other metrics, which a loss of your own cannot have."""

Compare = Callable[[Any, Any], Comparison]
"""(what is trained, all else) -> what a loss looks at; the gradient is that of the first."""


def import_named(path: str, field: str) -> Any:
    """Imports 'package.module:Name', from where Python looks and from the working directory.

    The field that holds the path is for the error.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{field} is {path!r}; it must be 'package.module:Name'")
    _look_in_working_directory()
    try:
        return operator.attrgetter(attribute)(importlib.import_module(module_name))
    except Exception as error:  # the module is the user's: it may raise anything
        raise ConfigError(
            f"{field} is {path!r}, which cannot be imported: {first_line(error)}"
        ) from None


def refuse_code_inside(folder: Path, path: str, field: str) -> None:
    """Refuses a module that lies in a folder, without importing anything that does.

    A model that somebody else has made may name a module, but not bring it: loading a model must
    not run code that came with it.

    Args:
      folder: The folder that no code is taken from.
      path: 'package.module:Name'.
      field: The field that holds it, for the error.
    """
    _look_in_working_directory()
    names = path.partition(":")[0].split(".")
    for depth in range(1, len(names) + 1):
        try:
            # This imports the packages above, which have been looked at before.
            spec = importlib.util.find_spec(".".join(names[:depth]))
        except Exception:  # `import_named` tells of it
            return
        if spec is None:
            return
        files = [spec.origin] if spec.has_location and spec.origin else []
        for place in (*files, *(spec.submodule_search_locations or ())):
            if Path(place).resolve().is_relative_to(folder.resolve()):
                raise ConfigError(
                    f"{field} is {path!r}, which lies in {folder} itself: code that comes with a "
                    "model is not run; put it elsewhere if you trust it"
                )


def _look_in_working_directory() -> None:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last: nothing that is installed gives way to it


def first_line(error: Exception) -> str:
    """Returns an exception's kind and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def extra_terms(config: ml_collections.ConfigDict) -> tuple[LossTerm, ...]:
    """Returns the losses of `config.loss.extra_terms`, in the order of their names."""
    return tuple(
        LossTerm(name, _of_comparison(import_named(term.function, _field(name))), term.weight)
        for name, term in sorted(config.loss.extra_terms.items())
    )


def _field(name: str) -> str:
    return f"config.loss.extra_terms.{name}.function"


def _of_comparison(function: Callable[..., jax.Array]) -> Callable[[Comparison], jax.Array]:
    """Gives a function those fields of a `Comparison` that its parameters are called after.

    One whose parameters have other names gets queries, keys, batch and step, in this order.
    """
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # not a function, or one written in C
        names = []
    if not names or not set(names) <= set(Comparison.__dataclass_fields__):
        names = ["queries", "keys", "batch", "step"]
    return lambda compared: function(*(getattr(compared, name) for name in names))


def check_extra_terms(
    config: ml_collections.ConfigDict, compare: Compare, shapes: tuple[Any, Any]
) -> None:
    """Checks the fields of the extra losses, and tries them and their gradients on shapes.

    Args:
      config: The config.
      compare: How training makes what a loss looks at.
      shapes: The shapes and dtypes of its arguments.
    """
    for name, term in config.loss.extra_terms.items():
        _check_term(f"config.loss.extra_terms.{name}", name, term)
    for term in extra_terms(config):

        def loss(trained: Any, others: Any, term: LossTerm = term) -> jax.Array:
            return term.function(compare(trained, others))

        try:
            jax.eval_shape(jax.value_and_grad(loss), *shapes)
        except Exception as error:  # the function is the user's
            raise ConfigError(
                f"{_field(term.name)} cannot be called with (queries, keys, batch, step), or with "
                "what its parameters are called after, to get a differentiable f32[]: "
                f"{first_line(error)}"
            ) from None


def _check_term(field: str, name: str, term: Any) -> None:
    if name in RESERVED_METRICS:
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
