"""PyTorch's default initial values, which the published results start from."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

linear_kernel: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""U(-1/sqrt(fan_in), 1/sqrt(fan_in)), as `torch.nn.Linear` draws its weight."""

convolution_kernel: Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He initialisation by fan-out, as torchvision's ResNet draws its convolutions."""


def uniform(bound: float) -> Initializer:
    """Returns an initializer that draws from U(-bound, bound), f32 by default.

    Mirrors the biases of `torch.nn.Linear` and all tensors of `torch.nn.GRU`.
    """

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        del out_sharding
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def dense(features: int, fan_in: int, name: str | None = None) -> nn.Dense:
    """Returns a `linen.Dense` of `features` outputs initialised as `torch.nn.Linear(fan_in, …)`."""
    return nn.Dense(features, kernel_init=linear_kernel, bias_init=uniform(fan_in**-0.5), name=name)
