"""A square convolution that becomes a matrix product where the grid is tiny."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from kamcl_jax.models import initializers

TINY_GRID = 4
"""Up to this many rows and columns of output, products of gathered patches beat convolutions.

On 2 CPU cores, 128 -> 128 channels at 2x2 positions, batch 50, forward + backward: 1.9 ms against
19.2 ms; from 8x8 positions on they are about equal or slower.
"""


class Convolution(nn.Module):
    """Convolution without bias, padded by half its size as PyTorch pads.

    "SAME" padding would shift strided convolutions against PyTorch's.

    Attributes:
      features: F, output channels.
      size: of the square kernel, odd.
      stride: of both directions.
    """

    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B, H, W, C] to f32[B, ceil(H / stride), ceil(W / stride), F]."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", initializers.convolution_kernel, shape)
        if max(-(-x.shape[1] // self.stride), -(-x.shape[2] // self.stride)) <= TINY_GRID:
            return convolve_by_patches(x, kernel, self.stride)
        return convolve(x, kernel, self.stride)


def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves f32[B, H, W, C] with f32[k, k, C, F], padding k // 2 on all sides."""
    padding = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def convolve_by_patches(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Computes `convolve` as one product of all k x k patches with the kernel as a matrix."""
    size, padding = kernel.shape[0], kernel.shape[0] // 2
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = (-(-length // stride) for length in x.shape[1:3])
    shifted = [
        padded[:, i : i + stride * rows : stride, j : j + stride * columns : stride][
            :, :rows, :columns
        ]
        for i in range(size)
        for j in range(size)
    ]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])
