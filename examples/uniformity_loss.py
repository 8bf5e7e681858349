"""A loss term that spreads embeddings over the sphere (Wang and Isola 2020).

`examples/uniformity_config.py` adds it to the embedded data set's training.
"""

import jax
import jax.numpy as jnp

from kamcl_jax.step.encoding import Batch, Encodings

SHARPNESS = 2.0
"""t of the paper."""


def uniformity(queries: Encodings, keys: Encodings, batch: Batch, step: jax.Array) -> jax.Array:
    """Log of the mean Gaussian potential of a batch's pairs, mean of images and texts -> f32[].

    Args:
      queries: of B pairs; unit vectors f32[B, E] in `image` and `text`.
      keys: of the same pairs, from the key encoders; without gradient.
      batch: that was encoded.
      step: i32[], for terms that come and go.
    """
    del keys, batch, step
    return (_potential(queries.image) + _potential(queries.text)) / 2


def _potential(x: jax.Array) -> jax.Array:
    squared_distances = 2 - 2 * x @ x.T
    others = ~jnp.eye(len(x), dtype=bool)
    exponents = jnp.where(others, -SHARPNESS * squared_distances, -jnp.inf)
    return jax.nn.logsumexp(exponents) - jnp.log(len(x) * (len(x) - 1))
