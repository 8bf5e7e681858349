"""Encodes a training batch with one pair of encoders, whole or in parts one after another."""

from typing import Any

import jax
from flax import linen as nn
from flax import struct
from jax.typing import DTypeLike

from kamcl_jax.models import layers
from kamcl_jax.parallel.mesh import Layout
from kamcl_jax.step import precision

Batch = dict[str, jax.Array]
"""image uint8[B, R, R, 3], which the step augments, or f32[B, S, S, 3], taken as it is (cropped and
normalised); tokens i32[B, T]; lengths i32[B]; word_concepts and image_concepts f32[B, N]; where
false negatives are left out, image_id and text_id i32[B]: see `input_pipeline.splits.batches`."""

_ENCODED = ("image", "tokens", "lengths", "word_concepts")


class Encodings(struct.PyTreeNode):
    """What a pair of encoders makes of one batch.

    Attributes:
      image: f32[B, E], unit vectors.
      text: f32[B, E], unit vectors.
      image_concepts: f32[B, N], probabilities.
      text_concepts: f32[B, N], probabilities.
    """

    image: jax.Array
    text: jax.Array
    image_concepts: jax.Array
    text_concepts: jax.Array


def encode(
    model: nn.Module,
    params: Any,
    batch_stats: Any,
    batch: Batch,
    dropout_key: jax.Array,
    *,
    parts: int = 1,
    dtype: DTypeLike | None = None,
    layout: Layout | None = None,
) -> tuple[Encodings, Any]:
    """Encodes one batch, its images augmented and normalised, in training mode.

    With several parts, only one part's activations are held at a time, also by the gradient, which
    computes them once more: gradient accumulation in which the losses still see the whole batch
    (Gao et al. 2021, "GradCache"). BatchNorm then normalises each part by its own statistics; the
    running ones move once, by the parts' mean.

    Args:
      model: a `DualEncoder`.
      params: of the query or of the key encoders.
      batch_stats: theirs.
      batch: image f32[B, S, S, 3]; the rest as in `Batch`.
      dropout_key: PRNG key.
      parts: divides B.
      dtype: of weights and activations; that of the parameters, if None.
      layout: where parameters lie; as they come, if None.

    Returns:
      The encodings and the new BatchNorm statistics, {} of a model without any.
    """
    if dtype is not None and parts == 1:
        params = precision.cast_floats(params, dtype)  # before they travel
    if layout is not None:
        params = layout.gathered(params)

    def encode_part(part: Batch, key: jax.Array) -> tuple[Encodings, Any]:
        # Each part casts for itself, so that the parts' gradients are summed in float32.
        inputs = [part[name] for name in _ENCODED]
        weights = params
        if dtype is not None:
            weights, inputs = precision.cast_floats((params, inputs), dtype)
        ((image, image_concepts), (text, text_concepts)), updated = model.apply(
            {"params": weights, "batch_stats": batch_stats},
            *inputs,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        encodings = Encodings(
            image=layers.l2_normalise(image),
            text=layers.l2_normalise(text),
            image_concepts=image_concepts,
            text_concepts=text_concepts,
        )
        return encodings, updated.get("batch_stats", {})

    if parts == 1:
        return encode_part(batch, dropout_key)
    split = jax.tree.map(lambda x: _every(x, parts), {name: batch[name] for name in _ENCODED})
    keys = jax.random.split(dropout_key, parts)
    remembering_inputs = jax.checkpoint(encode_part, prevent_cse=False)
    encodings, stats = jax.lax.map(lambda part: remembering_inputs(*part), (split, keys))
    return jax.tree.map(_together, encodings), jax.tree.map(lambda x: x.mean(0), stats)


def _every(x: jax.Array, parts: int) -> jax.Array:
    """[B, ...] -> [parts, B / parts, ...], part p the rows p, p + parts, ...: on their devices."""
    return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)


def _together(x: jax.Array) -> jax.Array:
    """Undoes `_every`."""
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])
