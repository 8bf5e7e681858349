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
from kamcl_jax.train_state import TrainState

Batch = dict[str, jax.Array]
"""image uint8[B, R, R, 3]; tokens i32[B, T]; lengths i32[B]; word_concepts and image_concepts
f32[B, N]: see `input_pipeline.loader`."""

Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """The numbers of a training step; all from the config, all fixed while it is compiled.

    Attributes:
      image_size: side of the crops in pixels.
      max_rotation: largest augmentation angle in degrees.
      momentum: of the key encoders.
      temperature: of the contrastive logits.
      margin: of the triplet loss.
      triplet_weight: of the hard triplet loss.
      contrastive_weight: of the InfoNCE losses.
      alignment_weight: of the concept alignment in step 2 of the schedule.
      alignment_from_epoch: first epoch (from 0) of step 2.
      steps_per_epoch: batches in an epoch.
    """

    image_size: int
    max_rotation: float
    momentum: float
    temperature: float
    margin: float
    triplet_weight: float
    contrastive_weight: float
    alignment_weight: float
    alignment_from_epoch: int
    steps_per_epoch: int


class Encodings(struct.PyTreeNode):
    """What both pairs of encoders make of one batch; hybrids are unit vectors, f32[B, E]."""

    image: jax.Array
    text: jax.Array
    image_concepts: jax.Array
    text_concepts: jax.Array
    image_keys: jax.Array
    text_keys: jax.Array
    batch_stats: Any
    key_batch_stats: Any


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    settings: StepSettings,
    mesh: Mesh,
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
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return train_step(state, batch, model, optimizer, settings)

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
) -> tuple[TrainState, Metrics]:
    """Takes one step: average keys, augment, encode, losses, update, push the queues."""
    step_key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    augment_key, dropout_key = jax.random.split(step_key)
    key_params = momentum.average(state.key_params, state.params, settings.momentum)
    batch = {**batch, "image": _augment(augment_key, batch["image"], settings)}

    def loss_of(params):
        encodings = encode(params, key_params, state, batch, model, dropout_key)
        loss, terms = loss_terms(encodings, state, batch["image_concepts"], settings)
        return loss, (terms, encodings)

    gradients, (terms, encodings) = jax.grad(loss_of, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    new_state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=encodings.batch_stats,
        key_params=key_params,
        key_batch_stats=encodings.key_batch_stats,
        opt_state=opt_state,
        image_queue=momentum.push(state.image_queue, encodings.image_keys),
        text_queue=momentum.push(state.text_queue, encodings.text_keys),
    )
    return new_state, {**terms, "gradient_norm": optax.global_norm(gradients)}


def _augment(key: jax.Array, images: jax.Array, settings: StepSettings) -> jax.Array:
    cropped = augmentation.random_rotation_and_crop(
        key, images, settings.image_size, settings.max_rotation
    )
    return augmentation.normalise(cropped)


def encode(
    params: Any,
    key_params: Any,
    state: TrainState,
    batch: Batch,
    model: nn.Module,
    dropout_key: jax.Array,
) -> Encodings:
    """Encodes one batch, augmented and normalised, with the query and the key encoders.

    Both run in training mode: each pair has its own BatchNorm statistics and its own dropout.
    Nothing of the key encoders has a gradient.
    """
    inputs = (batch["image"], batch["tokens"], batch["lengths"], batch["word_concepts"])
    query_dropout, key_dropout = jax.random.split(dropout_key)

    def run(params, batch_stats, dropout):
        return model.apply(
            {"params": params, "batch_stats": batch_stats},
            *inputs,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout},
        )

    ((image, image_concepts), (text, text_concepts)), query_stats = run(
        params, state.batch_stats, query_dropout
    )
    ((image_keys, _), (text_keys, _)), key_stats = run(
        jax.lax.stop_gradient(key_params), state.key_batch_stats, key_dropout
    )
    return Encodings(
        image=losses.l2_normalise(image),
        text=losses.l2_normalise(text),
        image_concepts=image_concepts,
        text_concepts=text_concepts,
        image_keys=losses.l2_normalise(image_keys),
        text_keys=losses.l2_normalise(text_keys),
        batch_stats=query_stats["batch_stats"],
        key_batch_stats=key_stats["batch_stats"],
    )


def loss_terms(
    encodings: Encodings, state: TrainState, labels: jax.Array, settings: StepSettings
) -> tuple[jax.Array, Metrics]:
    """Returns the weighted sum of the losses, f32[], and each term before its weight.

    Args:
      encodings: of the batch.
      state: its queues hold the negatives; its step chooses the schedule's weights.
      labels: f32[B, N], soft concept labels of the images.
      settings: weights, margin and temperature.
    """
    triplet = losses.hard_triplet(encodings.image @ encodings.text.T, settings.margin)
    image_logits = losses.contrastive_logits(
        encodings.image, encodings.text_keys, state.text_queue.keys, settings.temperature
    )
    text_logits = losses.contrastive_logits(
        encodings.text, encodings.image_keys, state.image_queue.keys, settings.temperature
    )
    contrastive = losses.info_nce(image_logits) + losses.info_nce(text_logits)
    alignment = losses.concept_alignment(
        encodings.image_concepts, labels
    ) + losses.concept_alignment(encodings.text_concepts, labels)
    alignment_weight = schedule.alignment_weight(
        state.step,
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
        "alignment_weight": jnp.asarray(alignment_weight),
    }
