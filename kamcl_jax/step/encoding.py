"""Encodes a training batch with one pair of encoders, at once or in microbatches."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax.typing import DTypeLike

from kamcl_jax.models.layers import l2_normalise
from kamcl_jax.parallel.mesh import Layout

Batch = dict[str, jax.Array]
"""B pairs of an image and a caption:

* image: uint8[B, R, R, 3], which the step augments, or f32[B, S, S, 3], which it takes as it is;
* tokens i32[B, T] and lengths i32[B]: the captions' words;
* word_concepts f32[B, N]: 1 for each concept that a caption names;
* image_concepts f32[B, N]: the images' soft concept labels;
* image_id and text_id i32[B], where something asks which keys belong together;
* says_direction bool[B], where images are mirrored or turned.
"""

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
    microbatches: int = 1,
    dtype: DTypeLike | None = None,
    layout: Layout | None = None,
) -> tuple[Encodings, Any]:
    """Encodes one batch in training mode; its images are augmented and normalised already.

    With several microbatches, only one of them has its activations in memory at a time. The
    gradient computes them once more, and the losses still see the whole batch (Gao et al. 2021,
    "GradCache"). BatchNorm then normalises each microbatch by its own statistics; the running
    statistics move once, by the mean over the microbatches.

    Args:
      model: A `DualEncoder`.
      params: The parameters of the query encoders or of the key encoders.
      batch_stats: Their BatchNorm statistics.
      batch: A `Batch` with image f32[B, S, S, 3].
      dropout_key: A PRNG key.
      microbatches: The number of microbatches, which divides B.
      dtype: The type that weights and activations are cast to; None leaves them.
      layout: Where the parameters lie; None takes them as they come.

    Returns:
      The encodings, and the new BatchNorm statistics: {} for a model without any.
    """
    if dtype is not None and microbatches == 1:
        params = cast_floats(params, dtype)  # before they travel between devices
    if layout is not None:
        params = layout.as_stored(layout.gathered(params))

    def encode_one(part: Batch, key: jax.Array) -> tuple[Encodings, Any]:
        inputs = [part[name] for name in _ENCODED]
        weights = params
        if dtype is not None:
            # Each microbatch casts for itself, so that their gradients are summed in float32.
            weights, inputs = cast_floats((params, inputs), dtype)
        ((image, image_concepts), (text, text_concepts)), updated = model.apply(
            {"params": weights, "batch_stats": batch_stats},
            *inputs,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        encodings = Encodings(
            l2_normalise(image), l2_normalise(text), image_concepts, text_concepts
        )
        return encodings, updated.get("batch_stats", {})

    if microbatches == 1:
        return encode_one(batch, dropout_key)
    split = jax.tree.map(
        lambda x: _interleaved(x, microbatches), {name: batch[name] for name in _ENCODED}
    )
    keys = jax.random.split(dropout_key, microbatches)
    remembering_inputs = jax.checkpoint(encode_one, prevent_cse=False)
    encodings, stats = jax.lax.map(lambda part: remembering_inputs(*part), (split, keys))
    return jax.tree.map(_joined, encodings), jax.tree.map(lambda x: x.mean(0), stats)


def cast_floats(tree: Any, dtype: DTypeLike) -> Any:
    """Casts the floating leaves of a pytree and leaves all others as they are.

    Parameters and inputs that are cast to bfloat16 just before `apply` make the encoders compute in
    it. The originals stay float32; so do BatchNorm's statistics, the pooling weights, the concept
    heads and everything after them. The gradient of a leaf has the leaf's own dtype.
    """

    def cast(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def _interleaved(x: jax.Array, count: int) -> jax.Array:
    """[B, ...] -> [count, B / count, ...]: part p has rows p, p + count, ..., on their devices."""
    return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)


def _joined(x: jax.Array) -> jax.Array:
    """Undoes `_interleaved`."""
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])
