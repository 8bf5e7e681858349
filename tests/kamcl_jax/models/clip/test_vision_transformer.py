"""Patches as one matrix product, against Flax's convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from kamcl_jax.models.clip.vision_transformer import Patches


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("size", "side", "bias"), [(8, 4, False), (11, 4, True), (6, 6, True)])
def test_patches_and_their_gradients_are_those_of_a_convolution(size, side, bias, dtype):
    with jax.enable_x64(dtype == "float64"):
        images = jnp.asarray(np.random.default_rng(0).normal(size=(3, size, size, 3)), dtype)
        ours = Patches(5, side, bias)
        theirs = nn.Conv(
            5, (side, side), side, "VALID", use_bias=bias, param_dtype=dtype, dtype=dtype
        )
        variables = theirs.init(jax.random.key(0), images)
        variables = jax.tree.map(lambda x: x + 0.1, variables)
        assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), images)) == jax.tree.map(
            jnp.shape, variables
        )

        def loss(module):
            def of(variables, images):
                tokens = module.apply(variables, images).reshape(3, -1, 5)
                return jnp.sum(jnp.sin(tokens)), tokens

            return jax.jit(jax.value_and_grad(of, (0, 1), has_aux=True))

        found, expected = (loss(module)(variables, images) for module in (ours, theirs))
        tolerance = 1e-5 if dtype == "float32" else 1e-12
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
            found,
            expected,
        )
