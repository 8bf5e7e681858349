"""What a batch's queries are compared with, and the weighted list of losses over that.

The paper's three losses and those that a config adds are entries of one list of `LossTerm`s.
"""

import operator
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from kamcl_jax.parallel.mesh import Layout
from kamcl_jax.step import key_queue, losses
from kamcl_jax.step.encoding import Batch, Encodings
from kamcl_jax.step.key_queue import KeyQueue, PairIds, Sides
from kamcl_jax.step.losses import Logits

Metrics = dict[str, jax.Array]


class Comparison(struct.PyTreeNode):
    """Everything that a loss may look at. The gradient reaches what comes from the queries alone.

    Attributes:
      queries: The encodings of the batch by the encoders that are trained.
      keys: The encodings of the same batch by the momentum encoders.
      batch: The batch, its images augmented and normalised, f32[B, S, S, 3].
      step: i32[], the training steps already taken.
      cosine: f32[B, B], the cosine of query image i and query caption j.
      temperature: f32[], what the contrastive losses divide similarities by.
      image_logits: Query images against their text key and the negatives.
      text_logits: Query captions against their image key and the negatives.
      same_pairs: bool[B, B], which other pairs of the batch are of the same image or text, and so
        no negatives of each other in the triplet and sigmoid losses; None where they all are.
      false_negatives: Which keys are of a query's image or text, and so no negatives of it; None
        where they all are.
      bias: f32[], what the sigmoid loss adds to similarities over the temperature; None adds
        nothing.
    """

    queries: Encodings
    keys: Encodings
    batch: Batch
    step: jax.Array
    cosine: jax.Array
    temperature: float | jax.Array
    image_logits: Logits
    text_logits: Logits
    same_pairs: jax.Array | None = None
    false_negatives: Sides | None = None
    bias: float | jax.Array | None = None


class LossTerm(NamedTuple):
    """One entry of the objective.

    Attributes:
      name: The name of its metric.
      function: A pure function of a `Comparison` that returns f32[].
      weight: The factor that it is added with; or a function of the step, for a schedule.
    """

    name: str
    function: Callable[[Comparison], jax.Array]
    weight: float | Callable[[jax.Array], jax.Array]


class ContrastSettings(NamedTuple):
    """What the queries of the contrastive losses are compared with.

    Attributes:
      temperature: It divides the similarities; above 0.
      negatives: 'queue' takes past keys as negatives, 'batch' the batch's other keys, 'both' both.
      mask_false_negatives: Whether keys of a query's own image or text are left out.
      mask_unfilled: Whether the random keys that the queues start with are left out.
      positives: 'own' aims at a query's own key alone; 'equal' at the keys of its own image or text
        as well, which are no negatives then; 'concepts', for the negatives of the batch alone, at
        those whose images have similar concepts.
      concept_share: How much of a target lies on similar concepts, see `losses.concept_shares`.
      bias: That of `Comparison`.
    """

    temperature: float | jax.Array
    negatives: str = "queue"
    mask_false_negatives: bool = False
    mask_unfilled: bool = False
    positives: str = "own"
    concept_share: float = 0.0
    bias: float | jax.Array | None = None

    @property
    def from_queue(self) -> bool:
        """Whether past keys are negatives."""
        return self.negatives in ("queue", "both")

    @property
    def from_batch(self) -> bool:
        """Whether the other keys of the batch are negatives."""
        return self.negatives in ("batch", "both")

    @property
    def finds_same_pairs(self) -> bool:
        """Whether keys of a query's image or text are told from others."""
        return self.mask_false_negatives or self.positives == "equal"

    @property
    def leaves_out_random_keys(self) -> bool:
        """Whether there are random keys among the candidates, and none of them is a negative."""
        return self.mask_unfilled and self.from_queue

    @property
    def needs_ids(self) -> bool:
        """Whether batches, and queues that are used, have to say which pairs their keys are of."""
        return self.finds_same_pairs or self.leaves_out_random_keys


def compare(
    queries: Encodings,
    keys: Encodings,
    batch: Batch,
    image_queue: KeyQueue,
    text_queue: KeyQueue,
    step: jax.Array,
    settings: ContrastSettings,
    layout: Layout | None = None,
) -> Comparison:
    """Compares the queries of a batch with each other, with its keys and with the negatives.

    Args:
      queries: The encodings by the encoders that are trained.
      keys: The encodings of the same batch by the momentum encoders.
      batch: The batch that was encoded.
      image_queue: Past image keys, the negatives of captions.
      text_queue: Past text keys, the negatives of images.
      step: i32[], the training steps already taken.
      settings: The temperature, and where negatives come from.
      layout: Where the queues lie; None stands for one device.
    """
    spread = layout if settings.from_queue and layout and layout.shard_queues else None
    past: tuple[Any, Any] = (image_queue.ids, text_queue.ids)  # there where they are asked for
    same, same_pairs = None, None
    if settings.finds_same_pairs:
        ids = PairIds.of_batch(batch)
        in_batch = key_queue.same_in_batch(ids)
        same_pairs = in_batch.of_images
        same = _candidates(settings, in_batch, partial(key_queue.same_in_queue, ids, *past, layout))
    left_out = same if settings.mask_false_negatives else None
    if settings.leaves_out_random_keys:
        size = len(queries.image)
        none = jnp.zeros((size, size), bool)
        random = _candidates(settings, Sides(none, none), partial(key_queue.unfilled, size, *past))
        left_out = random if left_out is None else left_out.either(random)
    shares = _shares(settings, batch, same, left_out)

    def logits(
        queries: jax.Array, keys: jax.Array, queue: jax.Array, side: Callable[[Sides], jax.Array]
    ) -> Logits:
        # The few queries travel to the many negatives.
        found = losses.contrastive_logits(
            jax.lax.with_sharding_constraint(queries, spread.whole) if spread else queries,
            keys,
            queue if settings.from_queue else None,
            settings.temperature,
            None if left_out is None else side(left_out),
            with_batch=settings.negatives == "both",
        )
        if spread:
            negatives = jax.lax.with_sharding_constraint(found.negatives, spread.negatives)
            found = found._replace(negatives=negatives)
        return found._replace(shares=None if shares is None else side(shares))

    return Comparison(
        queries=queries,
        keys=keys,
        batch=batch,
        step=step,
        cosine=queries.image @ queries.text.T,
        temperature=settings.temperature,
        image_logits=logits(queries.image, keys.text, text_queue.keys, lambda m: m.of_images),
        text_logits=logits(queries.text, keys.image, image_queue.keys, lambda m: m.of_texts),
        same_pairs=same_pairs,
        false_negatives=same,
        bias=settings.bias,
    )


def _candidates(
    settings: ContrastSettings, of_batch: Sides, of_queue: Callable[[], Sides]
) -> Sides:
    """Returns what all candidates are, in the order of the logits: the batch's, then past keys."""
    parts = [of_batch] if settings.from_batch else []
    return key_queue.joined([*parts, of_queue()] if settings.from_queue else parts)


def _shares(
    settings: ContrastSettings, batch: Batch, same: Sides | None, left_out: Sides | None
) -> Sides | None:
    """Returns how much of each query's target lies on the candidates, f32; None is nothing."""
    if settings.positives == "equal":
        return jax.tree.map(losses.equal_shares, same)
    if settings.positives == "own":
        return None
    shares = losses.concept_shares(batch["image_concepts"], settings.concept_share)
    both = Sides(shares, shares)
    if left_out is None:
        return both
    return jax.tree.map(lambda share, gone: jnp.where(gone, 0, share), both, left_out)


def triplet(compared: Comparison, margin: float, reduction: str = "sum") -> jax.Array:
    """The hard triplet loss of the batch's queries -> f32[].

    Args:
      compared: What the loss looks at.
      margin: What a match must beat every negative by.
      reduction: 'sum' adds up the B queries, 'mean' divides by B.
    """
    loss = losses.hard_triplet(compared.cosine, margin, compared.same_pairs)
    return loss / len(compared.cosine) if reduction == "mean" else loss


def contrastive(compared: Comparison) -> jax.Array:
    """The momentum contrastive losses of both directions -> f32[]."""
    return losses.info_nce(compared.image_logits) + losses.info_nce(compared.text_logits)


def batch_contrastive(compared: Comparison) -> jax.Array:
    """The contrastive loss of the batch's queries among themselves -> f32[].

    This is CLIP's loss (Radford et al. 2021) without its factor of one half: the gradient reaches
    both sides of each similarity, which that of a query with a key does not.
    """
    cosine, same = compared.cosine, compared.same_pairs
    own = jnp.eye(len(cosine), dtype=bool)
    left_out = own if same is None else own | same
    match = jnp.diagonal(cosine) / compared.temperature
    of_images = jnp.where(left_out, -jnp.inf, cosine / compared.temperature)
    return losses.info_nce(Logits(match, of_images)) + losses.info_nce(Logits(match, of_images.T))


def pairwise_sigmoid(compared: Comparison) -> jax.Array:
    """SigLIP's loss of the batch's queries among themselves -> f32[], see `losses`."""
    logits = compared.cosine / compared.temperature
    if compared.bias is not None:
        logits += compared.bias
    own = jnp.eye(len(logits), dtype=bool)
    return losses.pairwise_sigmoid(logits, own, compared.same_pairs)


def alignment(compared: Comparison) -> jax.Array:
    """The concept alignment of images and captions with the images' labels -> f32[]."""
    labels, queries = compared.batch["image_concepts"], compared.queries
    return losses.concept_alignment(queries.image_concepts, labels) + losses.concept_alignment(
        queries.text_concepts, labels
    )


def weighted_sum(terms: Sequence[LossTerm], compared: Comparison) -> Metrics:
    """Computes the objective.

    Args:
      terms: The losses, at least one.
      compared: What they look at.

    Returns:
      f32[] metrics: `loss`, the weighted sum; each term before its weight, under its name; for a
      term whose weight has a schedule, the weight as `<name>_weight`; and `false_negatives`, how
      many keys of a query are of its image or text on average, where they are told from others.
    """
    values = {term.name: term.function(compared) for term in terms}
    weights: dict[str, Any] = {
        term.name: term.weight(compared.step) if callable(term.weight) else term.weight
        for term in terms
    }
    loss: jax.Array = reduce(operator.add, [weights[name] * values[name] for name in values])
    scheduled = {
        f"{term.name}_weight": weights[term.name] for term in terms if callable(term.weight)
    }
    metrics: Metrics = {"loss": loss, **values, **scheduled}
    if compared.false_negatives is not None:
        metrics["false_negatives"] = compared.false_negatives.per_query
    return metrics
