"""Fuses the four stages of an image network into one vector, as the paper's aggregator does."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from kamcl_jax.models import layers
from kamcl_jax.models.gpo import GPO, Pooling, weights_together

LEVELS = 3
"""Final, low-level and high-level features."""

Pool = Callable[[jax.Array], jax.Array]
"""f32[B, D, N] -> f32[B, D]."""


class SharedMLP(nn.Module):
    """Linear, ReLU, Linear, ReLU on the last axis, width preserved."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[..., C] to f32[..., C]."""
        width = x.shape[-1]
        x = nn.relu(layers.dense(width, width, "linear1")(x))
        return nn.relu(layers.dense(width, width, "linear2")(x))


def upsample_to(features: jax.Array, like: jax.Array) -> jax.Array:
    """Doubles the resolution by nearest neighbour: f32[B, h, w, C] -> f32[B, H, W, C].

    The result is cropped to the size of `like`, f32[B, H, W, D] with H in {2h - 1, 2h} and W in
    {2w - 1, 2w}: odd sizes arise where the image size is no multiple of 32.
    """
    doubled = features.repeat(2, axis=1).repeat(2, axis=2)
    return doubled[:, : like.shape[1], : like.shape[2]]


class HierarchicalAggregator(nn.Module):
    """Low-, high-level and final features, each pooled its own way, then pooled together."""

    embedding_size: int  # E
    pooling_kernel: str = "counting"  # as `GPO` takes it

    @nn.compact
    def __call__(self, stages: Sequence[jax.Array]) -> jax.Array:
        """Maps the four stages, f32[B, H_s, W_s, C_s], to the latent vector f32[B, E]."""
        positions = stages[3].shape[1] * stages[3].shape[2]
        maps = stages[0].shape[3] + stages[1].shape[3]
        lists = {"final_gpo": positions, "low_gpo": maps, "gpo": 2 * LEVELS}
        poolings = [Pooling(GPO(kernel=self.pooling_kernel, name=n), lists[n]) for n in lists]
        final_pool, low_pool, pool = (
            partial(pooling.gpo, weights=weights)
            for pooling, weights in zip(poolings, weights_together(poolings), strict=True)
        )
        final, low = self.final(stages, final_pool), self.low(stages, low_pool)
        levels = jnp.stack([final, low, self.high(stages)], axis=1)
        items = jnp.concatenate([SharedMLP(name="mlp")(levels), levels], axis=1)
        return pool(items.swapaxes(1, 2))

    @nn.nowrap
    def final(self, stages: Sequence[jax.Array], pool: Pool) -> jax.Array:
        """GPO over the positions of the last stage -> f32[B, E].

        The paper's ResNet-18 has as many channels there as the embedding; other networks are
        brought to E by a linear layer.
        """
        batch, _, _, channels = stages[3].shape
        pooled = pool(stages[3].reshape(batch, -1, channels).swapaxes(1, 2))
        if channels == self.embedding_size:
            return pooled
        return layers.dense(self.embedding_size, channels, "final_linear")(pooled)

    @nn.nowrap
    def low(self, stages: Sequence[jax.Array], pool: Pool) -> jax.Array:
        """GPO over the channel maps of stages 1 and 2, then linear -> f32[B, E]."""
        maps = jnp.concatenate([stages[0], upsample_to(stages[1], stages[0])], axis=-1)
        batch, _, _, channels = maps.shape
        pooled = pool(maps.reshape(batch, -1, channels))
        return layers.dense(self.embedding_size, pooled.shape[-1], "low_linear")(pooled)

    @nn.nowrap
    def high(self, stages: Sequence[jax.Array]) -> jax.Array:
        """Mean over the positions of stages 3 and 4, then linear -> f32[B, E]."""
        maps = jnp.concatenate([stages[2], upsample_to(stages[3], stages[2])], axis=-1)
        pooled = maps.mean(axis=(1, 2))
        return layers.dense(self.embedding_size, pooled.shape[-1], "high_linear")(pooled)
