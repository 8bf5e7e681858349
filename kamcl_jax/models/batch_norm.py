"""Batch normalisation that keeps PyTorch's running variance."""

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
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if train:
            axes = tuple(range(x.ndim - 1))
            mean = wide.mean(axes)
            variance = jnp.square(wide - mean).mean(axes)
            if not self.is_initializing():
                count = x.size // channels
                unbiased = variance * (count / max(count - 1, 1))
                running_mean.value = self._blend(running_mean.value, mean)
                running_variance.value = self._blend(running_variance.value, unbiased)
        else:
            mean, variance = running_mean.value, running_variance.value
        multiplier = scale * jax.lax.rsqrt(variance + self.epsilon)
        return ((wide - mean) * multiplier + bias).astype(x.dtype)

    def _blend(self, old: jax.Array, new: jax.Array) -> jax.Array:
        blended = self.momentum * old + (1 - self.momentum) * jax.lax.stop_gradient(new)
        return blended.astype(old.dtype)
