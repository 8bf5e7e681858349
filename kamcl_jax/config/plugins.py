"""Encoders and losses of your own, which a config names as 'package.module:Name'.

docs/extending.md says what they have to be. They are tried on the shapes of a batch before anything
is prepared or compiled; what cannot be used raises a `ConfigError` in one sentence.
"""

import importlib
import importlib.util
import inspect
import json
import math
import operator
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn
from jax.typing import DTypeLike

from kamcl_jax.config.fields import flatten
from kamcl_jax.errors import ConfigError
from kamcl_jax.models.towers import DualEncoder, ImageEncoder, TextEncoder
from kamcl_jax.parallel.mesh import runs_triton
from kamcl_jax.step.encoding import Encodings, cast_floats
from kamcl_jax.step.losses import Logits
from kamcl_jax.step.objective import Comparison, LossTerm

TOWERS = ("image_encoder", "text_encoder")

RESERVED_METRICS = frozenset(
    {"step", "epoch", "loss", "triplet", "contrastive", "batch_contrastive", "alignment"}
    | {"alignment_weight", "false_negatives", "gradient_norm", "images_per_second", "skipped"}
    | {"temperature"}
)
"""The names of other metrics, which a loss of your own cannot have."""

_COLLECTIONS = frozenset({"params", "batch_stats"})  # of variables that the train state keeps

# Tower -> what only the package's own encoder can do, with the value that does not ask for it.
_OWN: dict[str, dict[str, object]] = {
    "image_encoder": {
        "image_encoder.pretrained": "",
        "image_encoder.rematerialise": False,
        "momentum_coverage": "all",
    },
    "text_encoder": {
        "text_encoder.pretrained": "",
        "caption_padding": "masked",
        "momentum_coverage": "all",
    },
}

_BATCH, _TOKENS = 2, 3  # the abstract inputs that another encoder is tried on


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
            f"{field} is {path!r}, which cannot be imported: {_first_line(error)}"
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


def _first_line(error: Exception) -> str:
    """Returns an exception's kind and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def make_model(
    config: ml_collections.ConfigDict,
    num_tokens: int,
    num_concepts: int,
    device: Any = None,
) -> DualEncoder:
    """Returns both towers: the paper's, or those that the config names.

    Args:
      config: The config, checked.
      num_tokens: The rows of the word embedding, the padding included.
      num_concepts: The concepts that the data set really has.
      device: One that it will run on; None stands for the first that JAX finds here.
    """
    image, text = config.image_encoder, config.text_encoder
    kernel = image.pooling_kernel
    if kernel == "auto":
        kernel = "pallas" if runs_triton(device or jax.devices()[0]) else "counting"
    widths = {"num_concepts": num_concepts, "embedding_size": config.embedding_size}
    if image.module:
        image_encoder = _make_other(config, "image_encoder", widths)
    else:
        image_encoder = ImageEncoder(
            **widths,
            depth=image.depth,
            width=image.width,
            rematerialise=image.rematerialise,
            pooling_kernel=kernel,
        )
    if text.module:
        text_encoder = _make_other(config, "text_encoder", {"num_tokens": num_tokens, **widths})
    else:
        text_encoder = TextEncoder(
            num_tokens=num_tokens,
            **widths,
            word_width=text.word_width,
            hidden_width=text.hidden_width,
            dropout=text.dropout,
            caption_padding=config.caption_padding,
            pooling_kernel=kernel,
        )
    initial = config.temperature if config.learn_temperature else None
    return DualEncoder(image_encoder, text_encoder, initial)


def _make_other(config: ml_collections.ConfigDict, tower: str, sizes: dict[str, int]) -> nn.Module:
    field, path = f"config.{tower}.module", config[tower].module
    constructor = import_named(path, field)
    try:
        module = constructor(**sizes, **config[tower].options.to_dict())
    except Exception as error:  # it is the user's
        raise ConfigError(
            f"{field} is {path!r}, which cannot be made with {', '.join(sizes)} and "
            f"config.{tower}.options: {_first_line(error)}"
        ) from None
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"{field} is {path!r}, which makes an object of type {type(module).__name__}, no Flax "
            "Linen module"
        )
    return module


def check_encoders(config: ml_collections.ConfigDict, dtype: DTypeLike | None) -> None:
    """Checks the fields of both towers, and tries encoders of your own on a batch's shapes.

    Args:
      config: The config.
      dtype: The type that weights and inputs will be cast to; None leaves them.
    """
    leaves = flatten(config)
    for tower in TOWERS:
        _check_tower(config, tower, leaves)
    if not any(config[tower].module for tower in TOWERS):
        return
    # Fewer than the embedding is wide, so that outputs that are swapped are found.
    num_concepts = max(1, min(config.num_concepts, config.embedding_size - 1))
    model, side = make_model(config, _TOKENS + 1, num_concepts), config.image_size
    images = jax.ShapeDtypeStruct((_BATCH, side, side, 3), jnp.float32)
    texts = (
        jax.ShapeDtypeStruct((_BATCH, _TOKENS), jnp.int32),
        jax.ShapeDtypeStruct((_BATCH,), jnp.int32),
        jax.ShapeDtypeStruct((_BATCH, num_concepts), jnp.float32),
    )
    calls = {"image_encoder": (model.image, (images,)), "text_encoder": (model.text, texts)}
    for tower, (module, inputs) in calls.items():
        if config[tower].module:
            named = f"config.{tower}.module is {config[tower].module!r}, which"
            _try_encoder(named, module, inputs, (config.embedding_size, num_concepts), dtype)


def _check_tower(config: ml_collections.ConfigDict, tower: str, leaves: Mapping[str, Any]) -> None:
    module, options = config[tower].module, config[tower].options
    try:
        json.dumps(options.to_dict())
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"config.{tower}.options must be what JSON can hold, as checkpoints keep them: {error}"
        ) from None
    if not module and options:
        raise ConfigError(
            f"config.{tower}.options has {min(options)!r}, but config.{tower}.module names no "
            "encoder that could have options"
        )
    for name, without in _OWN[tower].items():
        if module and leaves[name] != without:
            raise ConfigError(
                f"config.{name}={leaves[name]!r} is for the package's own {tower}; with "
                f"config.{tower}.module={module!r} it must be {without!r}"
            )


def _try_encoder(
    named: str,
    module: nn.Module,
    inputs: tuple[jax.ShapeDtypeStruct, ...],
    widths: tuple[int, int],
    dtype: DTypeLike | None,
) -> None:
    def run(*inputs: jax.Array) -> tuple[Any, list[Any]]:
        key = jax.random.key(0)
        variables = module.init(key, *inputs, train=False)
        cast = {**variables, "params": variables.get("params", {})}
        if dtype is not None:
            cast["params"], inputs = cast_floats((cast["params"], inputs), dtype)
        trained, _ = module.apply(
            cast, *inputs, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        return variables, [trained, module.apply(cast, *inputs, train=False)]

    try:
        variables, outputs = jax.eval_shape(run, *inputs)
    except Exception as error:  # the module is the user's
        shapes = ", ".join(f"{x.dtype}{list(x.shape)}" for x in inputs)
        raise ConfigError(f"{named} fails on {shapes}: {_first_line(error)}") from None
    kept = set(variables) - _COLLECTIONS
    if kept:
        raise ConfigError(
            f"{named} has variables in the collection {min(kept)!r}; only "
            f"{' and '.join(sorted(_COLLECTIONS))} are trained and saved"
        )
    expected = tuple(jax.ShapeDtypeStruct((_BATCH, width), jnp.float32) for width in widths)
    for output in outputs:
        if _shapes(output) != _shapes(expected):
            raise ConfigError(
                f"{named} returns {_shapes(output)} for {_BATCH} inputs, not {_shapes(expected)}: "
                "hybrid embedding and concept probabilities"
            )


def _shapes(outputs: Any) -> str:
    if isinstance(outputs, tuple):
        return f"({', '.join(map(_shapes, outputs))})"
    if isinstance(outputs, jax.ShapeDtypeStruct):
        return f"{outputs.dtype}{list(outputs.shape)}"
    return f"a {type(outputs).__name__}"


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
    config: ml_collections.ConfigDict, batch: dict[str, jax.ShapeDtypeStruct]
) -> None:
    """Checks the fields of the extra losses, and tries them and their gradients on shapes."""
    for name, term in config.loss.extra_terms.items():
        _check_term(f"config.loss.extra_terms.{name}", name, term)
    compared = _abstract_comparison(config, batch)
    for term in extra_terms(config):

        def loss(queries: Encodings, others: Comparison, term: LossTerm = term) -> jax.Array:
            cosine = queries.image @ queries.text.T
            return term.function(others.replace(queries=queries, cosine=cosine))

        try:
            jax.eval_shape(jax.value_and_grad(loss), compared.queries, compared)
        except Exception as error:  # the function is the user's
            raise ConfigError(
                f"{_field(term.name)} cannot be called with (queries, keys, batch, step), or with "
                "what its parameters are called after, to get a differentiable f32[]: "
                f"{_first_line(error)}"
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


def _abstract_comparison(
    config: ml_collections.ConfigDict, batch: dict[str, jax.ShapeDtypeStruct]
) -> Any:
    def floats(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    size, num_concepts = batch["word_concepts"].shape
    side = config.image_size
    encodings = Encodings(
        *[floats(size, config.embedding_size)] * 2, *[floats(size, num_concepts)] * 2
    )
    counts = {"batch": size, "queue": config.queue_length, "both": size + config.queue_length}
    count = counts[config.loss.negatives]
    logits = Logits(floats(size), floats(size, count))
    return Comparison(
        queries=encodings,
        keys=encodings,
        batch={**batch, "image": floats(size, side, side, 3)},  # type: ignore[dict-item]
        step=jax.ShapeDtypeStruct((), jnp.int32),  # type: ignore[arg-type]
        cosine=floats(size, size),
        temperature=floats(),
        image_logits=logits,
        text_logits=logits,
    )
