"""The encoders as StableHLO, to be run by JAX alone: without this package and without Flax.

| file                      | takes                                                          |
|---------------------------|----------------------------------------------------------------|
| `image_encoder.stablehlo` | pixels u8[b, S, S, 3], RGB                                     |
| `text_encoder.stablehlo`  | tokens i32[b, t], 0 = padding; named concepts u8[b, C], 0 or 1   |
|                           | (a published model: tokens of its own tokeniser, and any u8[b, C])|

Both give `embeddings`, f32[b, E], unit vectors, and `concepts`, f32[b, C], probabilities. The
sizes b and t are free, but captions that are longer than the model reads are refused, since neither
their last tokens nor the concepts that these name may count. Weights and normalisation are inside,
so one file is all that is needed.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from kamcl_jax.config import build, encoders, recipe
from kamcl_jax.errors import ExportError
from kamcl_jax.inference import embed
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.models.gpo import COUNT_UP_TO

PLATFORMS = ("cpu", "cuda", "tpu")
MOST_TOKENS = COUNT_UP_TO // 2
"""The longest caption of an exported text encoder, which pools two vectors a token."""

IMAGES, TEXTS = "image_encoder.stablehlo", "text_encoder.stablehlo"


def most_tokens(model: TrainedModel) -> int:
    """Returns how many tokens a caption for `text_encoder.stablehlo` has at most.

    One that is longer than the training's `data.max_tokens` must be cut before its tokens and
    concepts are looked up.
    """
    preset = encoders.published(model.config)
    if preset is not None:
        return preset.text.context
    return min(MOST_TOKENS, model.config.data.max_tokens or MOST_TOKENS)


def image_encoder(model: TrainedModel) -> bytearray:
    """Returns the contents of `image_encoder.stablehlo`.

    Raises:
      ExportError: A custom encoder cannot be exported for batches of any size.
    """
    encode, _ = _functions(model)
    variables, side = jax.device_get(model.variables), model.config.image_size

    def images(pixels):
        return _named(encode(_on_device(variables), pixels), len(model.concepts))

    (batch,) = export.symbolic_shape("b")
    return _serialized("image", images, jax.ShapeDtypeStruct((batch, side, side, 3), jnp.uint8))


def text_encoder(model: TrainedModel) -> bytearray:
    """Returns the contents of `text_encoder.stablehlo`; raises as `image_encoder` does."""
    _, encode = _functions(model)
    variables, known = jax.device_get(model.variables), len(model.concepts)

    def texts(tokens, concepts):
        lengths = jnp.sum(tokens != 0, axis=1, dtype=jnp.int32)
        concepts = jnp.pad(concepts, ((0, 0), (0, model.concept_width - known)))
        return _named(encode(_on_device(variables), tokens, lengths, concepts), known)

    batch, length = export.symbolic_shape("b, t", constraints=[f"t <= {most_tokens(model)}"])
    preset = encoders.published(model.config)
    if preset is not None and preset.family == "siglip":
        length = preset.text.context  # the padding counts
    return _serialized(
        "text",
        texts,
        jax.ShapeDtypeStruct((batch, length), jnp.int32),
        jax.ShapeDtypeStruct((batch, known), jnp.uint8),
    )


def _functions(model: TrainedModel) -> tuple[embed.EncodeImages, embed.EncodeTexts]:
    # Without a GPU's kernels, which know neither sizes that are open nor other platforms.
    towers = build.make_model(
        model.config, model.words.num_tokens, model.concept_width, jax.devices("cpu")[0]
    )
    config = model.config
    return embed.encoder_functions(
        towers, recipe.compute_dtype(config), normalisation=encoders.normalisation(config)
    )


def _on_device(variables: Any) -> Any:
    # Called within the traced function, so that weights become constants that lie on no device.
    return jax.tree.map(jnp.asarray, variables)


def _named(encoded: embed.Encoded, num_concepts: int) -> dict[str, jax.Array]:
    # A dict, since only those who know a named tuple's class could read it.
    return {
        "embeddings": jnp.asarray(encoded.embeddings),
        "concepts": jnp.asarray(encoded.concepts)[:, :num_concepts],
    }


def _serialized(which: str, function: Callable[..., Any], *specs: Any) -> bytearray:
    try:
        return export.export(jax.jit(function), platforms=PLATFORMS)(*specs).serialize()
    # A custom encoder may do with its sizes what JAX cannot do with unknown ones.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(
            f"the {which} encoder cannot be exported for inputs of any size: {reason}"
        ) from error
