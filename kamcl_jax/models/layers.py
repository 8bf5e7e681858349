"""Small operations and layers that the encoders share."""

import jax
import jax.numpy as jnp


def l2_normalise(x: jax.Array, epsilon: float = 1e-8) -> jax.Array:
    """Divides vectors along the last axis by (their Euclidean length + epsilon)."""
    # The gradient of a norm at the zero vector would be NaN, so the square is kept positive.
    tiny = jnp.finfo(x.dtype).tiny
    length = jnp.sqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), tiny))
    return x / (length + epsilon)
