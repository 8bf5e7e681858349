"""Batch normalisation that keeps PyTorch's running variance."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn


class BatchNorm(nn.Module):
    """Normalises the last axis over all others (Ioffe & Szegedy 2015), like `torch.nn.BatchNorm2d`.

    `linen.BatchNorm` keeps the biased variance of a batch; PyTorch keeps the unbiased one, and so
    do weights that come from it. Under `jit` with a sharded batch the statistics are those of the
    global batch.

    Statistics and the arithmetic are in float32 at least, whatever the dtype of the input: the
    mean of many bfloat16 numbers is no bfloat16 sum.

    Attributes:
      momentum: share of the old running statistic that stays at each update.
      epsilon: added to the variance.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalises; `train` uses and records the batch's statistics, which keep their dtype.

        Args:
          x: f32[..., C], or another float dtype.
          train: whether to use the batch's statistics instead of the running ones.

        Returns:
          Shape and dtype of `x`.
        """
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_variance = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if train:
            normalised, mean, variance = normalise_batch(x, scale, bias, self.epsilon)
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


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises the last axis by the statistics over all others.

    Its gradient keeps the input alone and reads it twice, where the derived one keeps and reads
    the centred input, too: the passes over memory are what batch normalisation costs.

    Args:
      x: f32[..., C], or another float dtype.
      scale: f32[C].
      bias: f32[C].
      epsilon: added to the variance.

    Returns:
      The normalised input in its dtype; mean and biased variance f32[C], float32 at least, which
      are taken as constants: no gradient flows through them.
    """
    return _forward(x, scale, bias, epsilon)[0]


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _forward(x, scale, bias, epsilon):
    axes = tuple(range(x.ndim - 1))
    mean = _wide(x).mean(axes)
    variance = jnp.square(_wide(x) - mean).mean(axes)
    inverse = jax.lax.rsqrt(variance + epsilon)
    normalised = ((_wide(x) - mean) * (scale * inverse) + bias).astype(x.dtype)
    return (normalised, mean, variance), (x, scale, bias, mean, inverse)


def _backward(epsilon, saved, gradients):
    del epsilon
    x, scale, bias, mean, inverse = saved
    gradient = _wide(gradients[0])
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    d_bias = gradient.sum(axes)
    d_scale = (gradient * (_wide(x) - mean)).sum(axes) * inverse
    from_variance = (_wide(x) - mean) * (inverse * d_scale / count)
    d_x = (gradient - d_bias / count - from_variance) * (scale * inverse)
    return d_x.astype(x.dtype), d_scale.astype(scale.dtype), d_bias.astype(bias.dtype)


normalise_batch.defvjp(_forward, _backward)
