"""Scores of images and captions, a block of queries at a time: given, or products of embeddings."""

import dataclasses
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

Array = np.ndarray | jax.Array


class Scores(Protocol):
    """Scores of N images and M captions, higher = more alike, of which you can get blocks.

    The scores of one block are comparable among each other exactly: equal pairs of embeddings
    score the same to the last bit. Between blocks they may differ by rounding.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """(N, M)."""

    def rows(self, images: slice) -> jax.Array:
        """Returns the scores of images `start` to `stop` with all captions, f32[B, M]."""

    def columns(self, captions: slice) -> jax.Array:
        """Returns the scores of captions `start` to `stop` with all images, f32[B, N]."""


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Scores that are given, on the host or a device; other types are read as f32."""

    values: Array  # f32[N, M], images by captions

    @property
    def shape(self) -> tuple[int, int]:
        """(N, M)."""
        num_images, num_captions = self.values.shape
        return num_images, num_captions

    def rows(self, images: slice) -> jax.Array:
        """See `Scores`."""
        return take_block(self.values, images)

    def columns(self, captions: slice) -> jax.Array:
        """See `Scores`."""
        # Turned, since counting along rows costs a fifth of counting down columns (on a CPU).
        return _turned(take_block(self.values, captions, axis=1))


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Inner products of embeddings on the host or a device; those of unit vectors are cosines."""

    images: Array  # f32[N, E]
    captions: Array  # f32[M, E]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, M)."""
        return len(self.images), len(self.captions)

    def rows(self, images: slice) -> jax.Array:
        """See `Scores`."""
        return inner_products(take_block(self.images, images), self.captions)

    def columns(self, captions: slice) -> jax.Array:
        """See `Scores`."""
        return inner_products(take_block(self.captions, captions), self.images)

    def on_device(self) -> "Embeddings":
        """Returns the same, copied once for all blocks to the default device of this process."""
        return Embeddings(_on_device(self.images), _on_device(self.captions))


def as_scores(scores: Scores | Array) -> Scores:
    """Returns `Scores` that are ready to give block after block; f32[N, M] becomes a `Matrix`."""
    if isinstance(scores, np.ndarray | jax.Array):
        return Matrix(scores)
    return scores.on_device() if isinstance(scores, Embeddings) else scores


@jax.jit
def inner_products(queries: Array, items: Array) -> jax.Array:
    """Returns all inner products of f32[Q, E] and f32[N, E] -> f32[Q, N], in full precision."""
    return jax.lax.dot_general(
        queries,
        items,
        (((1,), (1,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,  # an accelerator's default rounds to fewer bits
    )


def take_block(values: Array, block: slice, axis: int = 0) -> jax.Array:
    """Returns `values` from `block.start` to `block.stop` along an axis, as f32 on the device.

    One compilation serves all blocks of a size.
    """
    size = block.stop - block.start
    if size == values.shape[axis]:
        return _on_device(values)
    if isinstance(values, np.ndarray):
        return _on_device(values[block] if axis == 0 else values[:, block])
    return _slice(values, block.start, size, axis)


def _on_device(values: Array) -> jax.Array:
    return jnp.asarray(values, jnp.float32)


@partial(jax.jit, static_argnames=("size", "axis"))
def _slice(values: jax.Array, start: int, size: int, axis: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(values, start, size, axis).astype(jnp.float32)


@jax.jit
def _turned(values: jax.Array) -> jax.Array:
    return values.T
