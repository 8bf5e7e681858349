"""KAMCL's three losses: arrays in, scalars out. `objective` says what they are given."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kamcl_jax.models.layers import at_least_tiny


class Logits(NamedTuple):
    """The similarities of B queries with keys, divided by a temperature.

    The two are kept apart, so that negatives can lie on many devices.

    Attributes:
      match: f32[B], each query's similarity with its own key.
      negatives: f32[B, K], with the keys of others; -inf stands for a key that does not count.
    """

    match: jax.Array
    negatives: jax.Array


def hard_triplet(similarity: jax.Array, margin: float) -> jax.Array:
    """Triplet loss with the hardest negative of each row and each column (Faghri et al. 2018).

    Args:
      similarity: f32[B, B], the cosine of image i and caption j; matches are on the diagonal.
      margin: What a match must beat every negative by.

    Returns:
      f32[], the sum over the batch and both directions.
    """
    match = jnp.diagonal(similarity)
    by_caption = jax.nn.relu(margin + similarity - match[:, None])
    by_image = jax.nn.relu(margin + similarity - match[None, :])
    return _hardest(by_caption, axis=1).sum() + _hardest(by_image, axis=0).sum()


def _hardest(violations: jax.Array, axis: int) -> jax.Array:
    """Returns the largest violation by a negative along an axis: f32[B, B] -> f32[B].

    The first of equal ones gets the gradient, as in PyTorch. `jnp.max` would look for the largest
    one again in the backward pass, by `==`, and divide by zero wherever XLA has computed the
    violations a second time with another rounding; a place is an integer and stays what it is.
    """
    places = jnp.arange(len(violations))
    negative = places[:, None] != places
    place = jnp.argmax(jnp.where(negative, violations, 0), axis=axis, keepdims=True)
    hardest = (jax.lax.broadcasted_iota(place.dtype, violations.shape, axis) == place) & negative
    return jnp.where(hardest, violations, 0).sum(axis)


def contrastive_logits(
    queries: jax.Array,
    keys: jax.Array,
    queue: jax.Array | None,
    temperature: float,
    left_out: jax.Array | None = None,
) -> Logits:
    """Compares queries with their own key and with negatives (MoCo; He et al. 2020).

    No gradient flows into keys or queue.

    Args:
      queries: f32[B, E], unit vectors.
      keys: f32[B, E], unit vectors of the other modality; key b matches query b.
      queue: f32[K, E], unit vectors, the negatives. None takes the other keys of the batch, with
        -inf in the place of the match.
      temperature: It divides the similarities.
      left_out: bool[B, K] (bool[B, B] without a queue), the keys that are no negatives of a query:
        -inf takes their place. None leaves out none.
    """
    keys = jax.lax.stop_gradient(keys)
    match = jnp.sum(queries * keys, axis=-1)
    if queue is None:
        own = jnp.eye(queries.shape[0], dtype=bool)
        negatives = jnp.where(own, -jnp.inf, queries @ keys.T)
    else:
        negatives = queries @ jax.lax.stop_gradient(queue).T
    if left_out is not None:
        negatives = jnp.where(left_out, -jnp.inf, negatives)
    return Logits(match / temperature, negatives / temperature)


def info_nce(logits: Logits) -> jax.Array:
    """The mean cross-entropy of the match among all candidates -> f32[]."""
    match, negatives = logits
    # Shifted by the largest, which is finite even where all negatives are -inf.
    largest = jax.lax.stop_gradient(jnp.maximum(match, negatives.max(axis=1)))
    total = jnp.exp(match - largest) + jnp.exp(negatives - largest[:, None]).sum(axis=1)
    return jnp.mean(jnp.log(total) + largest - match)


def concept_alignment(probabilities: jax.Array, labels: jax.Array) -> jax.Array:
    """The binary cross-entropy of concept probabilities against soft labels.

    This is the paper's knowledge alignment, step 2 of its schedule.

    Args:
      probabilities: f32[B, N] in [0, 1].
      labels: f32[B, N] in [0, 1].

    Returns:
      f32[], the mean over all entries.
    """
    log_present = jnp.log(at_least_tiny(probabilities))
    log_absent = jnp.log(at_least_tiny(1 - probabilities))
    return -jnp.mean(labels * log_present + (1 - labels) * log_absent)
