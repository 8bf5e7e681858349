"""One training step of KAMCL as a pure function, jitted over a device mesh."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh

from kamcl_jax import augmentation, losses, momentum, schedule, sharding
from kamcl_jax.momentum import Mask
from kamcl_jax.train_state import TrainState

Batch = dict[str, jax.Array]
"""image uint8[B, R, R, 3], which the step augments, or f32[B, S, S, 3], taken as it is (cropped and
normalised); tokens i32[B, T]; lengths i32[B]; word_concepts and image_concepts f32[B, N]: see
`input_pipeline.loader`."""

Metrics = dict[str, jax.Array]
NEGATIVES = ("queue", "batch")
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """The numbers of a training step; all from the config, all fixed while it is compiled.

    Attributes:
      image_size: side of the crops in pixels.
      max_rotation: largest augmentation angle in degrees.
      momentum: of the key encoders.
      momentum_mask: which key parameters move; all, if None.
      temperature: of the contrastive logits.
      margin: of the triplet loss.
      negatives: of the contrastive loss, one of `NEGATIVES`: past keys, or the batch's other keys.
      triplet_weight: of the hard triplet loss.
      contrastive_weight: of the InfoNCE losses.
      alignment_weight: of the concept alignment in step 2 of the schedule.
      alignment_from_epoch: first epoch (from 0) of step 2.
      steps_per_epoch: batches in an epoch.
    """

    image_size: int
    max_rotation: float
    momentum: float
    momentum_mask: Mask | None
    temperature: float
    margin: float
    negatives: str
    triplet_weight: float
    contrastive_weight: float
    alignment_weight: float
    alignment_from_epoch: int
    steps_per_epoch: int


class Encodings(struct.PyTreeNode):
    """What a pair of encoders makes of one batch.

    Attributes:
      image: f32[B, E], unit vectors.
      text: f32[B, E], unit vectors.
      image_concepts: f32[B, N], probabilities.
      text_concepts: f32[B, N], probabilities.
      batch_stats: BatchNorm statistics, moved by this batch.
    """

    image: jax.Array
    text: jax.Array
    image_concepts: jax.Array
    text_concepts: jax.Array
    batch_stats: Any


class Similarities(struct.PyTreeNode):
    """What the losses compare.

    Attributes:
      cosine: f32[B, B], of query image i and query caption j.
      image_logits: f32[B, 1 + K], of query images with their text key and the negatives.
      text_logits: f32[B, 1 + K], of query captions with their image key and the negatives.
    """

    cosine: jax.Array
    image_logits: jax.Array
    text_logits: jax.Array


Observe = Callable[[Any, Similarities], dict[str, Any]]
"""(gradients of the query parameters, similarities) -> further metrics, any pytrees of arrays."""


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    settings: StepSettings,
    mesh: Mesh,
    observe: Observe | None = None,
) -> TrainStep:
    """Returns the compiled-on-first-call step `(state, batch) -> (state, metrics)`.

    The state is donated and whole on every device, the batch split over the mesh's `data` axis;
    BatchNorm, the in-batch negatives and the losses see the global batch, so the result does not
    depend on the number of devices but for rounding. (`jax.jit` with shardings is what `pjit` has
    become.)

    Args:
      model: a `DualEncoder`.
      optimizer: its learning rate included.
      settings: everything else.
      mesh: from `sharding.make_mesh`.
      observe: adds to the metrics, for who wants to see gradients or logits.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return train_step(state, batch, model, optimizer, settings, observe)

    whole, split = sharding.replicated(mesh), sharding.over_batch(mesh)
    return jax.jit(
        step, in_shardings=(whole, split), out_shardings=(whole, whole), donate_argnums=0
    )


def train_step(
    state: TrainState,
    batch: Batch,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    settings: StepSettings,
    observe: Observe | None = None,
) -> tuple[TrainState, Metrics]:
    """Takes one step: average and encode keys, losses and update of the queries, push the queues.

    The paper's momentum contrastive learning: the key encoders move first and encode the same
    augmented batch, with BatchNorm statistics and dropout of their own and outside of the
    gradient; the queues take the new keys after the losses.

    Args:
      state: before the step.
      batch: see `Batch`.
      model: a `DualEncoder`.
      optimizer: over the query parameters.
      settings: everything else.
      observe: adds to the metrics.

    Returns:
      The state after the step, and f32[] metrics: the losses (see `loss_terms`), the global
      norm of the gradients and what `observe` adds.

    Raises:
      ValueError: the queues cannot take a whole number of batches.
    """
    step_key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    augment_key, dropout_key = jax.random.split(step_key)
    query_dropout, key_dropout = jax.random.split(dropout_key)
    key_params = momentum.average(
        state.key_params, state.params, settings.momentum, settings.momentum_mask
    )
    batch = {**batch, "image": _augment(augment_key, batch["image"], settings)}
    keys = encode(model, key_params, state.key_batch_stats, batch, key_dropout)

    def loss_of(params):
        queries = encode(model, params, state.batch_stats, batch, query_dropout)
        compared = similarities(queries, keys, state, settings)
        loss, terms = loss_terms(compared, queries, batch["image_concepts"], state.step, settings)
        return loss, (terms, compared, queries.batch_stats)

    gradients, (terms, compared, batch_stats) = jax.grad(loss_of, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    new_state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        key_params=key_params,
        key_batch_stats=keys.batch_stats,
        opt_state=opt_state,
        image_queue=momentum.push(state.image_queue, keys.image),
        text_queue=momentum.push(state.text_queue, keys.text),
    )
    observed = observe(gradients, compared) if observe else {}
    return new_state, {**terms, "gradient_norm": optax.tree.norm(gradients), **observed}


def _augment(key: jax.Array, images: jax.Array, settings: StepSettings) -> jax.Array:
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    cropped = augmentation.random_rotation_and_crop(
        key, images, settings.image_size, settings.max_rotation
    )
    return augmentation.normalise(cropped)


def encode(
    model: nn.Module, params: Any, batch_stats: Any, batch: Batch, dropout_key: jax.Array
) -> Encodings:
    """Encodes one batch, its images augmented and normalised, in training mode.

    Args:
      model: a `DualEncoder`.
      params: of the query or of the key encoders.
      batch_stats: theirs.
      batch: image f32[B, S, S, 3]; the rest as in `Batch`.
      dropout_key: PRNG key.
    """
    ((image, image_concepts), (text, text_concepts)), updated = model.apply(
        {"params": params, "batch_stats": batch_stats},
        batch["image"],
        batch["tokens"],
        batch["lengths"],
        batch["word_concepts"],
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": dropout_key},
    )
    return Encodings(
        image=losses.l2_normalise(image),
        text=losses.l2_normalise(text),
        image_concepts=image_concepts,
        text_concepts=text_concepts,
        batch_stats=updated["batch_stats"],
    )


def similarities(
    queries: Encodings, keys: Encodings, state: TrainState, settings: StepSettings
) -> Similarities:
    """Compares the queries of a batch with each other, with its keys and with the negatives.

    Args:
      queries: of the batch.
      keys: of the same batch.
      state: its queues hold the negatives.
      settings: where negatives come from, temperature.
    """
    from_queue = settings.negatives == "queue"
    text_queue = state.text_queue.keys if from_queue else None
    image_queue = state.image_queue.keys if from_queue else None
    return Similarities(
        cosine=queries.image @ queries.text.T,
        image_logits=losses.contrastive_logits(
            queries.image, keys.text, text_queue, settings.temperature
        ),
        text_logits=losses.contrastive_logits(
            queries.text, keys.image, image_queue, settings.temperature
        ),
    )


def loss_terms(
    compared: Similarities,
    queries: Encodings,
    labels: jax.Array,
    step: jax.Array,
    settings: StepSettings,
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
