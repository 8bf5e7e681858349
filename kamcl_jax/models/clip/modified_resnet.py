"""CLIP's ResNet, which averages where others take strides, and pools by attention."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from kamcl_jax.models.clip.presets import ModifiedResNetSizes
from kamcl_jax.models.clip.transformer import Attention, Implementation, normal
from kamcl_jax.models.layers import BatchNorm, Convolution, plus


class ModifiedResNet(nn.Module):
    """CLIP's ResNet: three convolutions at first, averages in the place of strides, attention last.

    Averages before a convolution of stride 1 take the place of strided ones ("anti-aliased"), and
    attention of the mean to all positions that of the last average.
    """

    sizes: ModifiedResNetSizes
    embedding_size: int
    rematerialise: bool = False
    implementation: Implementation = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps [B, S, S, 3] to [B, E]."""
        width, x = self.sizes.width, images

        def run(module, x):
            return module(x, train=train)

        if self.rematerialise:
            run = nn.remat(run)
        for number, channels in enumerate((width // 2, width // 2, width), start=1):
            stride = 2 if number == 1 else 1
            x = Convolution(channels, 3, stride, name=f"conv{number}")(x)
            x = jax.nn.relu(BatchNorm(name=f"bn{number}")(x, train=train))
        x = _average(x, 2)
        for stage, blocks in enumerate(self.sizes.blocks):
            for index in range(blocks):
                stride = 2 if index == 0 and stage > 0 else 1
                block = Bottleneck(width * 2**stage, stride, name=f"layer{stage + 1}_{index}")
                x = run(block, x)
        pool = PositionPooling(
            self.sizes.heads, self.embedding_size, self.implementation, name="pooling"
        )
        return pool(x)


class Bottleneck(nn.Module):
    """A bottleneck whose stride is an average before its last convolution, and in its shortcut."""

    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, 4 * channels]."""
        shortcut, out = x, 4 * self.channels
        for number, side in ((1, 1), (2, 3)):
            x = Convolution(self.channels, side, name=f"conv{number}")(x)
            x = jax.nn.relu(BatchNorm(name=f"bn{number}")(x, train=train))
        x = Convolution(out, 1, name="conv3")(_average(x, self.stride))
        x = BatchNorm(name="bn3")(x, train=train)
        if self.stride > 1 or shortcut.shape[-1] != out:
            shortcut = Convolution(out, 1, name="shortcut_conv")(_average(shortcut, self.stride))
            shortcut = BatchNorm(name="shortcut_bn")(shortcut, train=train)
        return jax.nn.relu(x + shortcut)


class PositionPooling(nn.Module):
    """The mean of all positions attends to itself and to each of them."""

    heads: int
    embedding_size: int
    implementation: Implementation = None

    @nn.compact
    def __call__(self, grid: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, E]."""
        width = grid.shape[-1]
        tokens = grid.reshape(grid.shape[0], -1, width)
        tokens = jnp.concatenate([tokens.mean(axis=1, keepdims=True), tokens], axis=1)
        tokens = plus(tokens, self.param("positions", normal(width**-0.5), tokens.shape[1:]))
        attention = Attention(
            self.heads, width**-0.5, self.embedding_size, self.implementation, name="attention"
        )
        return attention(tokens, tokens[:, :1])[:, 0]


def _average(x: jax.Array, side: int) -> jax.Array:
    return x if side == 1 else nn.avg_pool(x, (side, side), strides=(side, side))
