"""KAMCL's three losses and SigLIP's: arrays in, scalars out. `objective` gives them theirs."""

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
      shares: f32[B, K], how much of a query's target lies on each of these keys after all, where
        some of them are as right as its own. The rows sum up to less than 1; the match has the
        rest. None leaves the match all of it.
    """

    match: jax.Array
    negatives: jax.Array
    shares: jax.Array | None = None


def hard_triplet(
    similarity: jax.Array, margin: float, left_out: jax.Array | None = None
) -> jax.Array:
    """Triplet loss with the hardest negative of each row and each column (Faghri et al. 2018).

    Args:
      similarity: f32[B, B], the cosine of image i and caption j; matches are on the diagonal.
      margin: What a match must beat every negative by.
      left_out: bool[B, B], the pairs that are no negatives of each other, besides the matches. None
        leaves out none.

    Returns:
      f32[], the sum over the batch and both directions.
    """
    match = jnp.diagonal(similarity)
    places = jnp.arange(len(similarity))
    negative = places[:, None] != places
    if left_out is not None:
        negative &= ~left_out
    by_caption = jax.nn.relu(margin + similarity - match[:, None])
    by_image = jax.nn.relu(margin + similarity - match[None, :])
    return _hardest(by_caption, negative, axis=1).sum() + _hardest(by_image, negative, axis=0).sum()


def _hardest(violations: jax.Array, negative: jax.Array, axis: int) -> jax.Array:
    """Returns the largest violation by a negative along an axis: f32[B, B] -> f32[B].

    The first of equal ones gets the gradient, as in PyTorch. `jnp.max` would look for the largest
    one again in the backward pass, by `==`, and divide by zero wherever XLA has computed the
    violations a second time with another rounding; a place is an integer and stays what it is.
    """
    place = jnp.argmax(jnp.where(negative, violations, 0), axis=axis, keepdims=True)
    hardest = (jax.lax.broadcasted_iota(place.dtype, violations.shape, axis) == place) & negative
    return jnp.where(hardest, violations, 0).sum(axis)


def contrastive_logits(
    queries: jax.Array,
    keys: jax.Array,
    queue: jax.Array | None,
    temperature: float | jax.Array,
    left_out: jax.Array | None = None,
    *,
    with_batch: bool = False,
) -> Logits:
    """Compares queries with their own key and with negatives (MoCo; He et al. 2020).

    No gradient flows into keys or queue.

    Args:
      queries: f32[B, E], unit vectors.
      keys: f32[B, E], unit vectors of the other modality; key b matches query b.
      queue: f32[Q, E], unit vectors, the negatives. None takes the other keys of the batch, with
        -inf in the place of the match: K is B.
      temperature: It divides the similarities.
      left_out: bool[B, K], the keys that are no negatives of a query: -inf takes their place. None
        leaves out none.
      with_batch: Whether the other keys of the batch are negatives beside a queue; they come first,
        and K is B + Q.
    """
    keys = jax.lax.stop_gradient(keys)
    match = jnp.sum(queries * keys, axis=-1)
    # Divided before they are masked: the gradient of -inf / temperature is no number.
    parts = []
    if queue is None or with_batch:
        own = jnp.eye(queries.shape[0], dtype=bool)
        parts.append(jnp.where(own, -jnp.inf, queries @ keys.T / temperature))
    if queue is not None:
        parts.append(queries @ jax.lax.stop_gradient(queue).T / temperature)
    negatives = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
    if left_out is not None:
        negatives = jnp.where(left_out, -jnp.inf, negatives)
    return Logits(match / temperature, negatives)


def info_nce(logits: Logits) -> jax.Array:
    """The mean cross-entropy of the target among all candidates -> f32[]."""
    match, negatives, shares = logits
    # Shifted by the largest, which is finite even where all negatives are -inf.
    largest = jax.lax.stop_gradient(jnp.maximum(match, negatives.max(axis=1)))
    total = jnp.exp(match - largest) + jnp.exp(negatives - largest[:, None]).sum(axis=1)
    log_total = jnp.log(total) + largest
    if shares is None:
        return jnp.mean(log_total - match)
    of_others = jnp.where(shares > 0, shares * negatives, 0).sum(axis=1)  # not 0 * -inf
    return jnp.mean(log_total - (1 - shares.sum(axis=1)) * match - of_others)


def equal_shares(same: jax.Array) -> jax.Array:
    """Returns `Logits.shares` of a target that lies on all keys that are as right as the match.

    Args:
      same: bool[B, K], whether key k is as right for query b as its own key, which has as large a
        share as each of them.
    """
    same = same.astype(jnp.float32)
    return same / (1 + same.sum(axis=1, keepdims=True))


def concept_shares(labels: jax.Array, share: float, sharpness: float = 10.0) -> jax.Array:
    """Returns `Logits.shares` by how alike the concepts of a batch's images are -> f32[B, B].

    A softmax over the cosines of the concept labels distributes `share` of each query's target over
    the batch, its own pair included; the match keeps what is left.

    Args:
      labels: f32[B, N], the soft concept labels of the images.
      share: In [0, 1).
      sharpness: It multiplies the cosines.
    """
    lengths = jnp.linalg.norm(labels, axis=1, keepdims=True)
    directions = labels / jnp.maximum(lengths, jnp.finfo(labels.dtype).tiny)
    alike = jax.nn.softmax(sharpness * (directions @ directions.T), axis=1)
    return share * jnp.where(jnp.eye(len(labels), dtype=bool), 0, alike)


def pairwise_sigmoid(
    logits: jax.Array, positives: jax.Array, left_out: jax.Array | None = None
) -> jax.Array:
    """The sigmoid loss (Zhai et al. 2023): whether two belong together, asked of each pair alone.

    Args:
      logits: f32[B, B], the cosine of image i and caption j over a temperature, plus a bias.
      positives: bool[B, B], the pairs that belong together.
      left_out: bool[B, B], the pairs that are not asked about. None leaves out none.

    Returns:
      f32[], the sum of the binary cross-entropies over all pairs, divided by B as in the paper.
    """
    costs = jax.nn.softplus(jnp.where(positives, -logits, logits))
    if left_out is not None:
        costs = jnp.where(left_out, 0, costs)
    return costs.sum() / len(logits)


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
