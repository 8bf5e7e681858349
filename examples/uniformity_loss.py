"""A loss term that spreads embeddings over the sphere (Wang and Isola 2020).

`examples/uniformity_config.py` adds it to the embedded data set's training.
"""

import jax
import jax.numpy as jnp

from kamcl_jax.step.encoding import Batch, Encodings

SHARPNESS = 2.0
"""The paper's t."""


def uniformity(queries: Encodings, keys: Encodings, batch: Batch, step: jax.Array) -> jax.Array:
    """Returns the log of the mean Gaussian potential, f32[], averaged over images and texts.

    Args:
      queries: The encodings of B pairs; `image` and `text` are unit vectors, f32[B, E].
      keys: The encodings of the same pairs by the key encoders, without gradient.
      batch: The batch that was encoded.
      step: The number of the step, i32[], for terms that come and go.
    """
    del keys, batch, step
    return (_potential(queries.image) + _potential(queries.text)) / 2


def _potential(x: jax.Array) -> jax.Array:
    squared_distances = 2 - 2 * x @ x.T
    others = ~jnp.eye(len(x), dtype=bool)
    exponents = jnp.where(others, -SHARPNESS * squared_distances, -jnp.inf)
    return jax.nn.logsumexp(exponents) - jnp.log(len(x) * (len(x) - 1))
