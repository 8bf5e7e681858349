"""A loss term that spreads embeddings over the sphere (Wang and Isola 2020).

`examples/uniformity_config.py` adds it to the embedded data set's training.
"""

import jax
import jax.numpy as jnp

from kamcl_jax import Encodings

SHARPNESS = 2.0  # the paper's t


def uniformity(queries: Encodings) -> jax.Array:
    """Returns the log of the mean Gaussian potential, f32[], averaged over images and texts.

    Of the encodings of B pairs it takes the unit vectors `image` and `text`, f32[B, E].
    """
    return (_potential(queries.image) + _potential(queries.text)) / 2


def _potential(x: jax.Array) -> jax.Array:
    squared_distances = 2 - 2 * x @ x.T
    others = ~jnp.eye(len(x), dtype=bool)
    exponents = jnp.where(others, -SHARPNESS * squared_distances, -jnp.inf)
    return jax.nn.logsumexp(exponents) - jnp.log(len(x) * (len(x) - 1))
