"""ResNet-18/34/50/101 (He et al. 2016) that returns its four stages, laid out as torchvision's."""

from functools import partial

import jax
from flax import linen as nn

from kamcl_jax.models.layers import BatchNorm, Convolution, max_pool

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}
"""Depth of the network -> residual blocks in each of its four stages."""

BOTTLENECK_FROM = 50  # the depth


def stage_channels(depth: int, width: int) -> tuple[int, ...]:
    """Returns the channels of the four stages' outputs; `width` is the first stage's inner one."""
    block = BottleneckBlock if depth >= BOTTLENECK_FROM else BasicBlock
    return tuple(width * block.expansion * 2**stage for stage in range(4))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the block of ResNet-18 and ResNet-34."""

    features: int
    stride: int = 1
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps f32[B, H, W, C] to f32[B, H / stride, W / stride, features]."""
        y = Convolution(self.features, 3, self.stride, name="conv1")(x)
        y = nn.relu(BatchNorm(name="bn1")(y, train=train))
        y = Convolution(self.features, 3, 1, name="conv2")(y)
        y = BatchNorm(name="bn2")(y, train=train)
        return nn.relu(y + _shortcut(x, y.shape[-1], self.stride, train))


class BottleneckBlock(nn.Module):
    """1x1, 3x3 (strided), 1x1 convolutions and a shortcut: the block of ResNet-50 and -101."""

    features: int
    stride: int = 1
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps f32[B, H, W, C] to f32[B, H / stride, W / stride, 4 * features]."""
        y = Convolution(self.features, 1, 1, name="conv1")(x)
        y = nn.relu(BatchNorm(name="bn1")(y, train=train))
        y = Convolution(self.features, 3, self.stride, name="conv2")(y)
        y = nn.relu(BatchNorm(name="bn2")(y, train=train))
        y = Convolution(self.expansion * self.features, 1, 1, name="conv3")(y)
        y = BatchNorm(name="bn3")(y, train=train)
        return nn.relu(y + _shortcut(x, y.shape[-1], self.stride, train))


def _shortcut(x: jax.Array, features: int, stride: int, train: bool) -> jax.Array:
    """Returns x where shapes allow it, else a strided 1x1 convolution of it (called in a block)."""
    if stride == 1 and x.shape[-1] == features:
        return x
    x = Convolution(features, 1, stride, name="downsample_conv")(x)
    return BatchNorm(name="downsample_bn")(x, train=train)


class ResNet(nn.Module):
    """A residual network without its classifier.

    Attributes:
      depth: 18, 34, 50 or 101.
      width: The channels of the stem and of the first stage's inner convolutions; 64 as published.
      rematerialise: Whether the backward pass computes the insides of the stem and of each block
        again instead of keeping them: less memory, about one more forward pass of work, the same
        parameters and results.
    """

    depth: int = 18
    width: int = 64
    rematerialise: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        """Returns the four stages' outputs of f32[B, H, W, 3], normalised, in its dtype.

        They are f32[B, ceil(H / s), ceil(W / s), C], s = 4, 8, 16, 32, C = width * (1, 2, 4, 8),
        four times that with bottleneck blocks.
        """
        block = BottleneckBlock if self.depth >= BOTTLENECK_FROM else BasicBlock

        def stem(module, x):
            del module
            x = Convolution(self.width, 7, 2, name="conv1")(x)
            x = nn.relu(BatchNorm(name="bn1")(x, train=train))
            return max_pool(x)

        def run(module, x):
            return module(x, train=train)

        # By blocks, since a stage kept whole needs the insides of all its blocks at once when its
        # turn comes; with the stem, since its grid is four times the first stage's and it would
        # keep more than all blocks' inputs together.
        if self.rematerialise:
            stem, run = nn.remat(stem), nn.remat(run)
        x = stem(self, images)
        stages = []
        for stage, blocks in enumerate(BLOCKS_PER_STAGE[self.depth]):
            make = partial(block, self.width * 2**stage)
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                x = run(make(stride=stride, name=f"layer{stage + 1}_{index}"), x)
            stages.append(x)
        return tuple(stages)
