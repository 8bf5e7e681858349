"""The paper's objective: what is compared with what, and the weighted sum of the losses."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
from flax import struct

from kamcl_jax.parallel.mesh import Layout
from kamcl_jax.step import losses, schedule
from kamcl_jax.step.encoding import Batch, Encodings
from kamcl_jax.step.false_negatives import FalseNegatives
from kamcl_jax.step.losses import Logits

NEGATIVES = ("queue", "batch")

Metrics = dict[str, jax.Array]

LossTerm = Callable[[Encodings, Encodings, Batch, jax.Array], jax.Array]
"""(queries, keys, batch, step i32[]) -> f32[], pure, to be traced; the queries alone have a
gradient, and the batch's images are augmented and normalised, f32[B, S, S, 3]."""


@dataclasses.dataclass(frozen=True)
class ExtraTerm:
    """A term that is added to the paper's objective.

    Attributes:
      name: of its metric.
      function: computes it.
      weight: by which it is added.
    """

    name: str
    function: LossTerm
    weight: float


@dataclasses.dataclass(frozen=True)
class ObjectiveSettings:
    """The numbers of the objective.

    Attributes:
      temperature: of the contrastive logits.
      margin: of the triplet loss.
      negatives: of the contrastive loss, one of `NEGATIVES`: past keys, or the batch's other keys.
      triplet_weight: of the hard triplet loss.
      contrastive_weight: of the InfoNCE losses.
      alignment_weight: of the concept alignment in step 2 of the schedule.
      alignment_from_epoch: first epoch (from 0) of step 2.
      steps_per_epoch: batches in an epoch.
      mask_false_negatives: whether keys of a query's image, or of its text, are none of its
        negatives in the contrastive losses.
      extra_terms: added to the paper's.
    """

    temperature: float
    margin: float
    negatives: str
    triplet_weight: float
    contrastive_weight: float
    alignment_weight: float
    alignment_from_epoch: int
    steps_per_epoch: int
    mask_false_negatives: bool = False
    extra_terms: tuple[ExtraTerm, ...] = ()


class Similarities(struct.PyTreeNode):
    """What the losses compare.

    Attributes:
      cosine: f32[B, B], of query image i and query caption j.
      image_logits: of query images with their text key and the negatives.
      text_logits: of query captions with their image key and the negatives.
    """

    cosine: jax.Array
    image_logits: Logits
    text_logits: Logits


def similarities(
    queries: Encodings,
    keys: Encodings,
    image_queue: jax.Array,
    text_queue: jax.Array,
    settings: ObjectiveSettings,
    layout: Layout | None = None,
    left_out: FalseNegatives | None = None,
) -> Similarities:
    """Compares the queries of a batch with each other, with its keys and with the negatives.

    Args:
      queries: of the batch.
      keys: of the same batch.
      image_queue: f32[K, E], past image keys.
      text_queue: f32[K, E], past text keys.
      settings: where negatives come from, temperature.
      layout: where queues lie.
      left_out: of the negatives; none are, if None.
    """
    from_queue = settings.negatives == "queue"
    spread = layout if from_queue and layout is not None and layout.shard_queues else None
    of_images, of_texts = (left_out.of_images, left_out.of_texts) if left_out else (None, None)

    def logits(
        queries: jax.Array, keys: jax.Array, queue: jax.Array, masked: jax.Array | None
    ) -> Logits:
        if spread is None:
            past = queue if from_queue else None
            return losses.contrastive_logits(queries, keys, past, settings.temperature, masked)
        # The few queries travel to the many negatives.
        everywhere = jax.lax.with_sharding_constraint(queries, spread.whole)
        found = losses.contrastive_logits(everywhere, keys, queue, settings.temperature, masked)
        negatives = jax.lax.with_sharding_constraint(found.negatives, spread.negatives)
        return Logits(found.match, negatives)

    return Similarities(
        cosine=queries.image @ queries.text.T,
        image_logits=logits(queries.image, keys.text, text_queue, of_images),
        text_logits=logits(queries.text, keys.image, image_queue, of_texts),
    )


def loss_terms(
    compared: Similarities,
    queries: Encodings,
    labels: jax.Array,
    step: jax.Array,
    settings: ObjectiveSettings,
) -> tuple[jax.Array, Metrics]:
    """Returns the paper's objective and its terms.

    Args:
      compared: from `similarities`.
      queries: of the batch; their concepts are aligned with the labels.
      labels: f32[B, N], soft concept labels of the images.
      step: i32[], chooses the schedule's weights.
      settings: weights and margin.

    Returns:
      The weighted sum f32[], and f32[] metrics: `loss` (the same), `triplet`, `contrastive` and
      `alignment` before their weights, `alignment_weight`.
    """
    triplet = losses.hard_triplet(compared.cosine, settings.margin)
    contrastive = losses.info_nce(compared.image_logits) + losses.info_nce(compared.text_logits)
    alignment = losses.concept_alignment(queries.image_concepts, labels) + losses.concept_alignment(
        queries.text_concepts, labels
    )
    alignment_weight = schedule.alignment_weight(
        step,
        settings.steps_per_epoch,
        settings.alignment_from_epoch,
        settings.alignment_weight,
    )
    loss = (
        settings.triplet_weight * triplet
        + settings.contrastive_weight * contrastive
        + alignment_weight * alignment
    )
    return loss, {
        "loss": loss,
        "triplet": triplet,
        "contrastive": contrastive,
        "alignment": alignment,
        "alignment_weight": alignment_weight,
    }


def add_extra_terms(
    metrics: Metrics,
    queries: Encodings,
    keys: Encodings,
    batch: Batch,
    step: jax.Array,
    terms: Sequence[ExtraTerm],
) -> Metrics:
    """Adds further terms to the paper's objective.

    Args:
      metrics: from `loss_terms`.
      queries: of the batch.
      keys: of the same batch.
      batch: that was encoded.
      step: i32[].
      terms: each with its weight.

    Returns:
      The metrics with the larger `loss`, and each term under its name before its weight.
    """
    for term in terms:
        value = term.function(queries, keys, batch, step)
        metrics = {**metrics, term.name: value, "loss": metrics["loss"] + term.weight * value}
    return metrics
