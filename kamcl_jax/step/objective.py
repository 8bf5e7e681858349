"""What a batch's queries are compared with, and the weighted list of losses over that.

The paper's three losses and those that a config adds are entries of one list of `LossTerm`s.
"""

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
from flax import struct

from kamcl_jax.parallel.mesh import Layout
from kamcl_jax.step import losses
from kamcl_jax.step.encoding import Batch, Encodings
from kamcl_jax.step.key_queue import FalseNegatives, KeyQueue, PairIds, find_false_negatives
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
      image_logits: Query images against their text key and the negatives.
      text_logits: Query captions against their image key and the negatives.
      false_negatives: The keys that were left out of the negatives; None where all count.
    """

    queries: Encodings
    keys: Encodings
    batch: Batch
    step: jax.Array
    cosine: jax.Array
    image_logits: Logits
    text_logits: Logits
    false_negatives: FalseNegatives | None = None


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
      negatives: 'queue' takes past keys as negatives, 'batch' the batch's other keys.
      mask_false_negatives: Whether keys of a query's own image or text are left out.
    """

    temperature: float
    negatives: str = "queue"
    mask_false_negatives: bool = False


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
    from_queue = settings.negatives == "queue"
    spread = layout if from_queue and layout is not None and layout.shard_queues else None
    left_out = None
    if settings.mask_false_negatives:
        ids = (image_queue.ids, text_queue.ids)
        left_out = find_false_negatives(PairIds.of_batch(batch), *ids, layout)

    def logits(
        queries: jax.Array, keys: jax.Array, queue: jax.Array, masked: jax.Array | None
    ) -> Logits:
        if spread is None:
            past = queue if from_queue else None
            return losses.contrastive_logits(queries, keys, past, settings.temperature, masked)
        # The few queries travel to the many negatives.
        everywhere = jax.lax.with_sharding_constraint(queries, spread.whole)
        found = losses.contrastive_logits(everywhere, keys, queue, settings.temperature, masked)
        return Logits(
            found.match, jax.lax.with_sharding_constraint(found.negatives, spread.negatives)
        )

    of_images, of_texts = (left_out.of_images, left_out.of_texts) if left_out else (None, None)
    return Comparison(
        queries=queries,
        keys=keys,
        batch=batch,
        step=step,
        cosine=queries.image @ queries.text.T,
        image_logits=logits(queries.image, keys.text, text_queue.keys, of_images),
        text_logits=logits(queries.text, keys.image, image_queue.keys, of_texts),
        false_negatives=left_out,
    )


def triplet(compared: Comparison, margin: float) -> jax.Array:
    """The hard triplet loss of the batch's queries -> f32[]."""
    return losses.hard_triplet(compared.cosine, margin)


def contrastive(compared: Comparison) -> jax.Array:
    """The momentum contrastive losses of both directions -> f32[]."""
    return losses.info_nce(compared.image_logits) + losses.info_nce(compared.text_logits)


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
      term whose weight has a schedule, the weight as `<name>_weight`; and `false_negatives`, the
      keys that a query leaves out on average, where they are masked.
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
