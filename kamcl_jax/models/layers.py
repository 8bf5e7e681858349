"""The layers and small operations that the encoders share, initialised as PyTorch's are."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax.nn.initializers import Initializer

linear_init: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""U(-1/sqrt(fan_in), 1/sqrt(fan_in)), as `torch.nn.Linear` draws its weight."""

convolution_init: Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He initialisation by fan-out, as torchvision's ResNet draws its convolutions."""

TINY_GRID = 4
"""Up to this many rows and columns of output, products of gathered patches beat convolutions.

On 2 CPU cores, 128 -> 128 channels at 2x2 positions, batch 50, forward + backward: 1.9 ms against
19.2 ms; from 8x8 positions on they are about equal or slower.
"""

POOL_SIZE, POOL_STRIDE = 3, 2
NOWHERE = POOL_SIZE * POOL_SIZE
"""The place in a window that does not exist; no position of a real window has this number."""


def uniform_init(bound: float) -> Initializer:
    """Returns U(-bound, bound), as `torch.nn.Linear` draws biases and `torch.nn.GRU` everything."""

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        del out_sharding
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def plus(x: jax.Array, term: jax.Array) -> jax.Array:
    """Adds what has fewer entries, such as a bias or positions, in float32 at least.

    The gradient of such a term is a sum over all that it is added to. Of a sum of thousands 16 bits
    keep little, as small numbers no longer change a large one.

    Returns:
      The sum in the dtype of x.
    """
    return (_wide(x) + _wide(term)).astype(x.dtype)


class Dense(nn.Module):
    """A `linen.Dense` whose bias is added by `plus`."""

    features: int
    kernel_init: Initializer
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., D] to [..., features]."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        x, kernel = promote_dtype(x, kernel)
        return plus(x @ kernel, self.param("bias", self.bias_init, (self.features,)))


def dense(features: int, fan_in: int, name: str | None = None) -> Dense:
    """Returns a `Dense` that is initialised as `torch.nn.Linear(fan_in, features)`."""
    return Dense(features, linear_init, uniform_init(fan_in**-0.5), name=name)


def l2_normalise(x: jax.Array, epsilon: float = 1e-8) -> jax.Array:
    """Divides vectors along the last axis by (their Euclidean length + epsilon)."""
    # The gradient of a norm at the zero vector would be NaN, so the square is kept positive.
    length = jnp.sqrt(at_least_tiny(jnp.sum(x * x, axis=-1, keepdims=True)))
    return x / (length + epsilon)


def at_least_tiny(x: jax.Array) -> jax.Array:
    """Returns the larger of x and the smallest positive number of its dtype; NaN stays.

    The gradient of `jnp.maximum` asks by `==` which of the two the result was, and is lost where
    XLA has computed x a second time with another rounding. This one asks whether x is smaller.
    """
    tiny = jnp.finfo(x.dtype).tiny
    return jnp.where(x < tiny, tiny, x)


class Convolution(nn.Module):
    """A square convolution without bias, padded by half its size as PyTorch pads.

    "SAME" padding would shift strided convolutions against PyTorch's.
    """

    features: int  # F
    size: int  # odd
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps f32[B, H, W, C] to f32[B, ceil(H / stride), ceil(W / stride), F]."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", convolution_init, shape)
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


class BatchNorm(nn.Module):
    """Normalises the last axis over all others (Ioffe & Szegedy 2015), like `torch.nn.BatchNorm2d`.

    `linen.BatchNorm` keeps the biased variance of a batch; PyTorch keeps the unbiased one, and so
    do weights that come from it. Under `jit` with a sharded batch the statistics are those of the
    global batch.

    The statistics and the arithmetic are in float32 at least, whatever the dtype of the input: the
    mean of many bfloat16 numbers is no bfloat16 sum.
    """

    momentum: float = 0.9  # the share of the old running statistic that stays
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalises f32[..., C], or another float dtype; shape and dtype stay.

        With `train`, the batch's statistics are used and recorded; the running ones keep their
        dtype.
        """
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_variance = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if train:
            normalised, mean, variance = normalise_batch(
                x, scale, bias, running_mean.value, self.epsilon
            )
            if not self.is_initializing():
                count = x.size // channels
                unbiased = variance * (count / max(count - 1, 1))
                running_mean.value = self._blend(running_mean.value, mean)
                running_variance.value = self._blend(running_variance.value, unbiased)
            return normalised
        multiplier = scale * jax.lax.rsqrt(running_variance.value + self.epsilon)
        return ((_wide(x) - running_mean.value) * multiplier + bias).astype(x.dtype)

    def _blend(self, old: jax.Array, new: jax.Array) -> jax.Array:
        blended = self.momentum * old + (1 - self.momentum) * new
        return blended.astype(old.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def normalise_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, shift: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises the last axis by the statistics over all others; scale and bias are f32[C].

    An accelerator takes both moments around `shift`, f32[C], in one pass over memory. It changes
    nothing but the rounding, which is best near the mean: the running mean is there already.

    Its gradient keeps the input alone and reads it twice, where the derived one keeps and reads
    the centred input, too: the passes over memory are what batch normalisation costs.

    Returns:
      f32[..., C] in the input's dtype; mean and biased variance f32[C], float32 at least, which
      are taken as constants: no gradient flows through them.
    """
    return _normalise_forward(x, scale, bias, shift, epsilon)[0]


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _moments(x: jax.Array, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the mean and the biased variance of the last axis over all others, f32[C] each."""
    del shift  # two plain passes are what a CPU does fastest
    axes = tuple(range(x.ndim - 1))
    mean = _wide(x).mean(axes)
    return mean, jnp.square(_wide(x) - mean).mean(axes)


def _moments_in_one_pass(x: jax.Array, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Does `_moments` around a shift: with one pass over memory, and one sum over devices."""
    axes, shift = tuple(range(x.ndim - 1)), _wide(shift)
    offset, square = ((_wide(x) - shift).mean(axes), jnp.square(_wide(x) - shift).mean(axes))
    return shift + offset, jnp.maximum(square - offset**2, 0)


def _normalise_forward(x, scale, bias, shift, epsilon):
    mean, variance = jax.lax.platform_dependent(
        x, shift, cpu=_moments, default=_moments_in_one_pass
    )
    inverse = jax.lax.rsqrt(variance + epsilon)
    normalised = ((_wide(x) - mean) * (scale * inverse) + bias).astype(x.dtype)
    return (normalised, mean, variance), (x, scale, bias, mean, inverse)


def _normalise_backward(epsilon, saved, gradients):
    del epsilon
    x, scale, bias, mean, inverse = saved
    gradient = _wide(gradients[0])
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    d_bias = gradient.sum(axes)
    d_scale = (gradient * (_wide(x) - mean)).sum(axes) * inverse
    from_variance = (_wide(x) - mean) * (inverse * d_scale / count)
    d_x = (gradient - d_bias / count - from_variance) * (scale * inverse)
    return d_x.astype(x.dtype), d_scale.astype(scale.dtype), d_bias.astype(bias.dtype), None


normalise_batch.defvjp(_normalise_forward, _normalise_backward)


def max_pool(x: jax.Array) -> jax.Array:
    """Takes the largest of 3x3 positions with stride 2, padded by one, as a ResNet's stem does.

    Values and gradients are those of `linen.max_pool`; of equal values the first, by rows and then
    by columns, gets the gradient. On a CPU, XLA computes the gradient of that one with index arrays
    and a scatter: forward and backward take 155 to 170 ms against 38 ms for f32[8, 128, 128, 64] on
    2 cores.

    It maps f32[B, H, W, C], or another float dtype, to [B, ceil(H / 2), ceil(W / 2), C]; NaN where
    a window has a NaN.
    """
    to_even = [(0, length % POOL_STRIDE) for length in x.shape[1:3]]
    return _pool(jnp.pad(x, ((0, 0), *to_even, (0, 0)), constant_values=-jnp.inf))


@jax.custom_vjp
def _pool(x: jax.Array) -> jax.Array:
    return _pool_forward(x)[0]


def _pool_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the largest value of each window and its place there, u8[B, h, w, C], row by row.

    The backward pass must not look for the place by `x == largest`: XLA may compute `x` a second
    time inside of the backward fusion and round it otherwise, and a window where nothing is equal
    would lose its gradient. A place that comes of comparisons of "greater" exists however the
    values are rounded; at worst, two values that differ by a rounding trade places.
    """
    values = _values_by_place(x)
    largest = next(values)
    place = jnp.zeros(largest.shape, jnp.uint8)
    for number, value in enumerate(values, start=1):
        place = jnp.where(value > largest, jnp.uint8(number), place)
        largest = jnp.maximum(largest, value)  # unlike a `where`, it keeps a NaN
    return largest, place


def _values_by_place(x: jax.Array) -> Iterator[jax.Array]:
    """Yields what stands at place 0, 1, ..., 8 of all windows, each [B, h, w, C]."""
    rows, columns = (length // POOL_STRIDE for length in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0)), constant_values=-jnp.inf)
    for row in range(POOL_SIZE):
        for column in range(POOL_SIZE):
            yield padded[
                :,
                row : row + POOL_STRIDE * rows - 1 : POOL_STRIDE,
                column : column + POOL_STRIDE * columns - 1 : POOL_STRIDE,
            ]


def _pool_backward(place: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    batch, rows, columns, channels = place.shape
    # One more row and column of windows than there are: they get nothing.
    beyond = ((0, 0), (0, 1), (0, 1), (0, 0))
    place = jnp.pad(place, beyond, constant_values=NOWHERE)
    padded = jnp.pad(gradient, beyond)

    def share(row: int, column: int) -> jax.Array:
        """Returns the gradient of the positions (2i + row, 2j + column)."""
        # Position 2i is row 1 of window i; 2i + 1 is row 2 of window i and row 0 of window i + 1.
        at_rows = ((1, 0),) if row == 0 else ((2, 0), (0, 1))
        at_columns = ((1, 0),) if column == 0 else ((2, 0), (0, 1))
        total = jnp.zeros_like(gradient)
        for at_row, i in at_rows:
            for at_column, j in at_columns:
                windows = slice(None), slice(i, i + rows), slice(j, j + columns)
                gets = place[windows] == POOL_SIZE * at_row + at_column
                total += jnp.where(gets, padded[windows], 0)
        return total

    by_row = [jnp.stack([share(row, 0), share(row, 1)], axis=3) for row in range(POOL_STRIDE)]
    together = jnp.stack(by_row, axis=2)
    return (together.reshape(batch, POOL_STRIDE * rows, POOL_STRIDE * columns, channels),)


_pool.defvjp(_pool_forward, _pool_backward)
