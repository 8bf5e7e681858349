"""One training step of KAMCL as a pure function, jitted over a device mesh. Start reading here."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.typing import DTypeLike

from kamcl_jax.models.clip import towers
from kamcl_jax.parallel.mesh import Layout, compiler_options
from kamcl_jax.step import augmentation, key_queue, momentum, schedule, temperature
from kamcl_jax.step.augmentation import IMAGENET, Normalisation
from kamcl_jax.step.encoding import Batch, Encodings, encode
from kamcl_jax.step.finetuning import TRAIN_ALL, Finetuning, whole
from kamcl_jax.step.key_queue import PairIds
from kamcl_jax.step.momentum import Mask
from kamcl_jax.step.objective import (
    Comparison,
    ContrastSettings,
    LossTerm,
    Metrics,
    compare,
    weighted_sum,
)
from kamcl_jax.step.state import TrainState

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]

Observe = Callable[[Any, Comparison], dict[str, Any]]
"""(gradients of the query parameters, comparison) -> further metrics, any pytrees of arrays."""


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """The constants of a training step, fixed when it is compiled.

    Attributes:
      terms: The losses with their weights.
      contrast: What the contrastive losses compare the queries with.
      image_size: The side of the random crops, in pixels.
      max_rotation: The largest angle of the random rotations, in degrees.
      momentum: The share of the key encoders that a step keeps.
      momentum_mask: It says which key parameters move; None moves all of them.
      microbatches: In how many parts a batch is encoded, one after another; see `encode`.
      dtype: The type that the encoders compute in; None leaves that of the parameters.
      skip_not_finite: Whether a loss or a gradient that is not finite leaves the state as it is,
        but for the counts of steps (which the schedules go by) and of skipped updates.
      flips: Whether images are mirrored at random; see `augmentation.random_symmetries`.
      quarter_turns: Whether images are turned at random by multiples of 90 degrees.
      normalisation: What is made of the pixels' values then.
      finetuning: Which part of the parameters trains.
      learns_temperature: Whether a temperature among the parameters moves.
      largest_scale: How large the scale of the logits, 1 / temperature, may grow when it is learnt;
        None sets no limit.
    """

    terms: tuple[LossTerm, ...]
    contrast: ContrastSettings
    image_size: int
    max_rotation: float
    momentum: float
    momentum_mask: Mask | None = None
    microbatches: int = 1
    dtype: DTypeLike | None = None
    skip_not_finite: bool = False
    flips: bool = False
    quarter_turns: bool = False
    normalisation: Normalisation = IMAGENET
    finetuning: Finetuning = TRAIN_ALL
    learns_temperature: bool = True
    largest_scale: float | None = temperature.LARGEST_SCALE


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    settings: StepSettings,
    layout: Layout,
    observe: Observe | None = None,
) -> Any:
    """Returns `train_step`, jitted over the devices of a layout: a `TrainStep`.

    The state is donated and lies as the layout says; the batch is split over all devices.
    BatchNorm, the negatives and the losses see the global batch, so the result does not depend on
    the number of devices but for rounding. (`jax.jit` with shardings is what `pjit` has become.)

    Args:
      model: A `DualEncoder`.
      optimizer: The optimiser, with its learning rate.
      settings: The constants of the step.
      layout: From `state_layout` or `mesh.replicated`.
      observe: It may add to the metrics, for example gradients or logits.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return train_step(state, batch, model, optimizer, settings, layout, observe)

    return jax.jit(
        layout.traced(step),
        in_shardings=(layout.state, layout.batch),
        out_shardings=(layout.state, layout.whole),
        donate_argnums=0,
        compiler_options=compiler_options(layout.mesh, convolves=towers.convolves(model)),
    )


def train_step(
    state: TrainState,
    batch: Batch,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    settings: StepSettings,
    layout: Layout | None = None,
    observe: Observe | None = None,
) -> tuple[TrainState, Metrics]:
    """Takes one step of knowledge-aided momentum contrastive learning (the paper's section III).

    The key encoders move first and encode the same augmented batch, with BatchNorm statistics and
    dropout of their own and outside of the gradient. The queues take the new keys after the losses.

    Args:
      state: The state before the step.
      batch: B pairs of images and captions.
      model: A `DualEncoder`.
      optimizer: The optimiser of the query parameters.
      settings: The constants of the step.
      layout: Where the state lies; None stands for one device.
      observe: It may add to the metrics.

    Returns:
      The state after the step, and f32[] metrics: those of `weighted_sum`, the global norm of the
      gradients (`gradient_norm`), the updates skipped so far (`skipped`), and what `observe` adds.
    """
    step_key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    augment_key, dropout_key = jax.random.split(step_key)
    query_dropout, key_dropout = jax.random.split(dropout_key)
    batch = {**batch, "image": augment(augment_key, batch, settings)}

    encode_batch = partial(
        encode, model, microbatches=settings.microbatches, dtype=settings.dtype, layout=layout
    )
    key_params = momentum.average(
        state.key_params, state.params, settings.momentum, settings.momentum_mask
    )
    with_frozen = partial(whole, settings.finetuning, frozen=state.frozen)
    keys, key_batch_stats = encode_batch(
        with_frozen(key_params), state.key_batch_stats, batch, key_dropout
    )
    queues = (state.image_queue, state.text_queue)

    def loss_of(trained):
        params = with_frozen(trained)
        queries, batch_stats = encode_batch(params, state.batch_stats, batch, query_dropout)
        contrast = temperature.with_learned(
            settings.contrast, params, moves=settings.learns_temperature
        )
        compared = compare(queries, keys, batch, *queues, state.step, contrast, layout)
        metrics = weighted_sum(settings.terms, compared)
        held = {
            "temperature": temperature.learned(params),
            "bias": temperature.learned_bias(params),
        }
        metrics |= {name: value for name, value in held.items() if value is not None}
        return metrics["loss"], (metrics, compared, batch_stats)

    gradients, (metrics, compared, batch_stats) = jax.grad(loss_of, has_aux=True)(state.params)
    metrics["gradient_norm"] = optax.tree.norm(gradients)
    ids = PairIds.of_batch(batch) if settings.contrast.needs_ids else None
    largest_scale = settings.largest_scale if settings.learns_temperature else None
    new_state = update(state, gradients, keys, optimizer, ids, largest_scale).replace(
        step=state.step + 1,
        batch_stats=batch_stats,
        key_params=key_params,
        key_batch_stats=key_batch_stats,
    )
    if settings.skip_not_finite:
        new_state = _unless_not_finite(metrics, new_state, state)
    metrics["skipped"] = new_state.skipped.astype(jnp.float32)
    observed = observe(gradients, compared) if observe else {}
    return new_state, {**metrics, **observed}


def augment(key: jax.Array, batch: Batch, settings: StepSettings) -> jax.Array:
    """Rotates, crops, mirrors and normalises a batch's images at random -> f32[B, S, S, 3].

    Images that are floats are taken as they are. An image whose caption says a direction is not
    mirrored, nor turned by quarters.
    """
    images, symmetries = batch["image"], None
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    if settings.flips or settings.quarter_turns:
        # Rotations and crops split the key; a number that is folded in leaves them as they are.
        symmetries = augmentation.random_symmetries(
            jax.random.fold_in(key, 2),
            batch[augmentation.SAYS_DIRECTION],
            flips=settings.flips,
            quarter_turns=settings.quarter_turns,
        )
    cropped = augmentation.random_rotation_and_crop(
        key, images, settings.image_size, settings.max_rotation, symmetries
    )
    return augmentation.normalise(cropped, settings.normalisation)


def update(
    state: TrainState,
    gradients: Any,
    keys: Encodings,
    optimizer: optax.GradientTransformation,
    ids: PairIds | None = None,
    largest_scale: float | None = None,
) -> TrainState:
    """Moves the query parameters and pushes a batch's keys; all else stays as it was.

    Args:
      state: The state before the step.
      gradients: The gradients of the query parameters.
      keys: The encodings of the batch by the key encoders.
      optimizer: The optimiser of the query parameters.
      ids: The ids of the batch's pairs, for queues that keep them.
      largest_scale: That of `StepSettings`.
    """
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    return state.replace(
        params=temperature.clamped(optax.apply_updates(state.params, updates), largest_scale),
        opt_state=opt_state,
        image_queue=key_queue.push(state.image_queue, keys.image, ids),
        text_queue=key_queue.push(state.text_queue, keys.text, ids),
    )


def _unless_not_finite(metrics: Metrics, after: TrainState, before: TrainState) -> TrainState:
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
    skipped = before.replace(
        step=after.step,
        skipped=before.skipped + 1,
        opt_state=schedule.keep_time(before.opt_state, after.opt_state),
    )
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, skipped)
