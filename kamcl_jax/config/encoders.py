"""The two towers that a config describes: the package's own, or others by their import path.

`docs/extending.md` says what another encoder has to be.
"""

import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn
from jax.typing import DTypeLike

from kamcl_jax.config import fields as config_check
from kamcl_jax.config import import_path
from kamcl_jax.errors import ConfigError
from kamcl_jax.models.towers import DualEncoder, ImageEncoder, TextEncoder
from kamcl_jax.step import precision

COLLECTIONS = frozenset({"params", "batch_stats"})
"""Of variables that the train state keeps."""

TOWERS = ("image_encoder", "text_encoder")

# Tower -> what only the package's own encoder can be asked for, with what asks for nothing.
_OWN: dict[str, dict[str, object]] = {
    "image_encoder": {
        "image_encoder.pretrained": "",
        "image_encoder.rematerialise": False,
        "image_encoder.pooling_kernel": "counting",
        "momentum_coverage": "all",
    },
    "text_encoder": {
        "text_encoder.pretrained": "",
        "caption_padding": "masked",
        "momentum_coverage": "all",
    },
}

_BATCH, _TOKENS = 2, 3  # of the abstract inputs that another encoder is tried on


def make_model(
    config: ml_collections.ConfigDict, num_tokens: int, num_concepts: int
) -> DualEncoder:
    """Returns both towers.

    Args:
      config: widths, depth, dropout; or import paths of other encoders, and their options.
      num_tokens: rows of the word embedding, the padding included.
      num_concepts: that the data set really has.

    Raises:
      ConfigError: an encoder that the config names cannot be made.
    """
    return DualEncoder(_image(config, num_concepts), _text(config, num_tokens, num_concepts))


def _image(config: ml_collections.ConfigDict, num_concepts: int) -> nn.Module:
    image = config.image_encoder
    sizes = {"num_concepts": num_concepts, "embedding_size": config.embedding_size}
    if image.module:
        return _other(config, "image_encoder", sizes)
    return ImageEncoder(
        **sizes,
        depth=image.depth,
        width=image.width,
        rematerialise=image.rematerialise,
        pooling_kernel=image.pooling_kernel,
    )


def _text(config: ml_collections.ConfigDict, num_tokens: int, num_concepts: int) -> nn.Module:
    text = config.text_encoder
    sizes = {
        "num_tokens": num_tokens,
        "num_concepts": num_concepts,
        "embedding_size": config.embedding_size,
    }
    if text.module:
        return _other(config, "text_encoder", sizes)
    return TextEncoder(
        **sizes,
        word_width=text.word_width,
        hidden_width=text.hidden_width,
        dropout=text.dropout,
        caption_padding=config.caption_padding,
    )


def _other(config: ml_collections.ConfigDict, tower: str, sizes: dict[str, int]) -> nn.Module:
    """Makes the encoder that `config.<tower>.module` names."""
    named = f"config.{tower}.module"
    constructor = import_path.resolve(config[tower].module, named)
    try:
        module = constructor(**sizes, **config[tower].options.to_dict())
    except Exception as error:  # it is the user's
        raise ConfigError(
            f"{named} is {config[tower].module!r}, which cannot be made with {', '.join(sizes)} "
            f"and config.{tower}.options: {import_path.told(error)}"
        ) from None
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"{named} is {config[tower].module!r}, which makes an object of type "
            f"{type(module).__name__}, no Flax Linen module"
        )
    return module


def others(config: ml_collections.ConfigDict) -> list[str]:
    """Returns which of `TOWERS` is another than the package's own."""
    return [tower for tower in TOWERS if config[tower].module]


def check(config: ml_collections.ConfigDict, dtype: DTypeLike | None) -> None:
    """Checks the towers' fields, and tries others than the package's own on a batch's shapes.

    Nothing is computed.

    Args:
      config: as `configs.base` describes it.
      dtype: that weights and inputs will be cast to; None leaves them.

    Raises:
      ConfigError: a field does not go with the encoder, or that cannot be imported, made or
        called, or returns something else.
    """
    fields = config_check.flatten(config)
    for tower in TOWERS:
        _check_fields(config, tower, fields)
    if not others(config):
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
    for tower in others(config):
        said = f"config.{tower}.module is {config[tower].module!r}, which"
        _try(said, *calls[tower], (config.embedding_size, num_concepts), dtype)


def _check_fields(config: ml_collections.ConfigDict, tower: str, fields: Mapping[str, Any]) -> None:
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
        if module and fields[name] != without:
            raise ConfigError(
                f"config.{name}={fields[name]!r} is for the package's own {tower}; with "
                f"config.{tower}.module={module!r} it must be {without!r}"
            )


def _try(
    said: str,
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
            cast["params"], inputs = precision.cast_floats((cast["params"], inputs), dtype)
        trained, _ = module.apply(
            cast, *inputs, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        return variables, [trained, module.apply(cast, *inputs, train=False)]

    try:
        variables, outputs = jax.eval_shape(run, *inputs)
    except Exception as error:  # the module is the user's
        shapes = ", ".join(f"{x.dtype}{list(x.shape)}" for x in inputs)
        raise ConfigError(f"{said} fails on {shapes}: {import_path.told(error)}") from None
    kept = set(variables) - COLLECTIONS
    if kept:
        raise ConfigError(
            f"{said} has variables in the collection {min(kept)!r}; only "
            f"{' and '.join(sorted(COLLECTIONS))} are trained and saved"
        )
    expected = tuple(jax.ShapeDtypeStruct((_BATCH, width), jnp.float32) for width in widths)
    for output in outputs:
        if _shapes(output) != _shapes(expected):
            raise ConfigError(
                f"{said} returns {_shapes(output)} for {_BATCH} inputs, not {_shapes(expected)}: "
                "hybrid embedding and concept probabilities"
            )


def _shapes(outputs: Any) -> str:
    if isinstance(outputs, tuple):
        return f"({', '.join(map(_shapes, outputs))})"
    if isinstance(outputs, jax.ShapeDtypeStruct):
        return f"{outputs.dtype}{list(outputs.shape)}"
    return f"a {type(outputs).__name__}"
