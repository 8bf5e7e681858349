"""One training step of KAMCL as a pure function, jitted over a device mesh."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.typing import DTypeLike

from kamcl_jax.parallel.mesh import Layout, compiler_options
from kamcl_jax.step import (
    augmentation,
    false_negatives,
    momentum,
    pair_ids,
    resident_batch,
    schedule,
)
from kamcl_jax.step.encoding import Batch, Encodings, encode
from kamcl_jax.step.momentum import KeyQueue, Mask
from kamcl_jax.step.objective import (
    Metrics,
    ObjectiveSettings,
    Similarities,
    add_extra_terms,
    loss_terms,
    similarities,
)
from kamcl_jax.step.pair_ids import PairIds
from kamcl_jax.step.state import TrainState

TrainStep = Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]]
NOT_FINITE = ("stop", "skip")


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """The numbers of a training step; all from the config, all fixed while it is compiled.

    Attributes:
      objective: of the losses.
      image_size: side of the crops in pixels.
      max_rotation: largest augmentation angle in degrees.
      momentum: of the key encoders.
      momentum_mask: which key parameters move; all, if None.
      parts: that a batch is encoded in, see `encoding.encode`.
      dtype: that weights and activations are cast to in the encoders; None leaves them.
      skip_not_finite: whether a loss or gradient that is not finite leaves the state as it is, but
        for the counts of steps, which the schedules go by, and of skipped updates.
    """

    objective: ObjectiveSettings
    image_size: int
    max_rotation: float
    momentum: float
    momentum_mask: Mask | None = None
    parts: int = 1
    dtype: DTypeLike | None = None
    skip_not_finite: bool = False


Observe = Callable[[Any, Similarities], dict[str, Any]]
"""(gradients of the query parameters, similarities) -> further metrics, any pytrees of arrays."""


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    settings: StepSettings,
    layout: Layout,
    observe: Observe | None = None,
    *,
    resident: bool = False,
) -> Any:
    """Returns the jitted step `(state, batch) -> (state, metrics)`, a `TrainStep`.

    The state is donated and lies as the layout says, the batch is split over all devices;
    BatchNorm, the in-batch negatives and the losses see the global batch, so the result does not
    depend on the number of devices but for rounding. (`jax.jit` with shardings is what `pjit` has
    become.)

    Args:
      model: a `DualEncoder`.
      optimizer: its learning rate included.
      settings: everything else.
      layout: from `sharding.make_layout` or `sharding.replicated`.
      observe: adds to the metrics, for who wants to see gradients or logits.
      resident: whether the step takes `resident_data.CaptionNumbers`, of a training split that lies
        on the devices, and looks up the batch itself.
    """

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        if resident:
            batch = resident_batch.batch_of(batch, layout)
        return train_step(state, batch, model, optimizer, settings, layout, observe)

    with_texts = settings.objective.mask_false_negatives
    places = resident_batch.places(layout, with_texts) if resident else layout.batch
    return jax.jit(
        step,
        in_shardings=(layout.state, places),
        out_shardings=(layout.state, layout.whole),
        donate_argnums=0,
        compiler_options=compiler_options(layout.mesh),
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
    """Takes one step: average and encode keys, losses and update of the queries, push the queues.

    The paper's momentum contrastive learning: the key encoders move first and encode the same
    augmented batch, with BatchNorm statistics and dropout of their own and outside of the
    gradient; the queues take the new keys after the losses.

    Args:
      state: before the step.
      batch: see `encoding.Batch`.
      model: a `DualEncoder`.
      optimizer: over the query parameters.
      settings: everything else.
      layout: where the state lies; on one device, if None.
      observe: adds to the metrics.

    Returns:
      The state after the step, and f32[] metrics: those of `score`, the global norm of the
      gradients, the updates skipped so far (`skipped`), and what `observe` adds.

    Raises:
      ValueError: the queues are shorter than a batch.
    """
    step_key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    augment_key, dropout_key = jax.random.split(step_key)
    query_dropout, key_dropout = jax.random.split(dropout_key)
    key_params = momentum.average(
        state.key_params, state.params, settings.momentum, settings.momentum_mask
    )
    batch = {**batch, "image": augment(augment_key, batch["image"], settings)}
    encode_batch = partial(encode, model, parts=settings.parts, dtype=settings.dtype, layout=layout)
    keys, key_batch_stats = encode_batch(key_params, state.key_batch_stats, batch, key_dropout)

    def loss_of(params):
        queries, batch_stats = encode_batch(params, state.batch_stats, batch, query_dropout)
        terms, compared = score(state, queries, keys, batch, settings.objective, layout)
        return terms["loss"], (terms, compared, batch_stats)

    gradients, (terms, compared, batch_stats) = jax.grad(loss_of, has_aux=True)(state.params)
    ids = pair_ids.of_batch(batch) if settings.objective.mask_false_negatives else None
    new_state = update(state, gradients, keys, optimizer, ids).replace(
        step=state.step + 1,
        batch_stats=batch_stats,
        key_params=key_params,
        key_batch_stats=key_batch_stats,
    )
    metrics = {**terms, "gradient_norm": optax.tree.norm(gradients)}
    if settings.skip_not_finite:
        new_state = _unless_not_finite(metrics, new_state, state)
    metrics["skipped"] = new_state.skipped.astype(jnp.float32)
    observed = observe(gradients, compared) if observe else {}
    return new_state, {**metrics, **observed}


def score(
    state: TrainState,
    queries: Encodings,
    keys: Encodings,
    batch: Batch,
    settings: ObjectiveSettings,
    layout: Layout | None = None,
) -> tuple[Metrics, Similarities]:
    """Compares the queries of a batch with keys and queues, and computes the objective.

    Args:
      state: whose queues and step they are.
      queries: of the batch.
      keys: of the same batch.
      batch: that was encoded.
      settings: of the objective.
      layout: where queues lie.

    Returns:
      f32[] metrics, and what the losses compared. The metrics are those of `objective.loss_terms`,
      the extra terms, and where false negatives are left out, how many keys that are for a query
      on average (`false_negatives`).
    """
    left_out = None
    if settings.mask_false_negatives:
        queue_ids = (state.image_queue.ids, state.text_queue.ids)
        left_out = false_negatives.find(pair_ids.of_batch(batch), *queue_ids, layout)
    queues = (state.image_queue.keys, state.text_queue.keys)
    compared = similarities(queries, keys, *queues, settings, layout, left_out)
    labels = batch["image_concepts"]
    _, metrics = loss_terms(compared, queries, labels, state.step, settings)
    metrics = add_extra_terms(metrics, queries, keys, batch, state.step, settings.extra_terms)
    if left_out is not None:
        metrics["false_negatives"] = left_out.per_query
    return metrics, compared


def _unless_not_finite(metrics: Metrics, after: TrainState, before: TrainState) -> TrainState:
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
    skipped = before.replace(
        step=after.step,
        skipped=before.skipped + 1,
        opt_state=schedule.keep_time(before.opt_state, after.opt_state),
    )
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, skipped)


def update(
    state: TrainState,
    gradients: Any,
    keys: Encodings,
    optimizer: optax.GradientTransformation,
    ids: PairIds | None = None,
) -> TrainState:
    """Moves the query parameters and pushes a batch's keys.

    Args:
      state: before the step.
      gradients: of the query parameters.
      keys: of the batch.
      optimizer: over the query parameters.
      ids: of the batch's pairs; queues that have none do not take them.

    Returns:
      The state with new parameters, moments and queues; everything else is as it was.
    """
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)

    def push(queue: KeyQueue, keys: jax.Array) -> KeyQueue:
        return momentum.push(queue, keys, None if queue.ids is None else ids)

    return state.replace(
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        image_queue=push(state.image_queue, keys.image),
        text_queue=push(state.text_queue, keys.text),
    )


def augment(key: jax.Array, images: jax.Array, settings: StepSettings) -> jax.Array:
    """Returns what the encoders see of a batch's images.

    Args:
      key: PRNG key.
      images: uint8[B, R, R, 3], which are rotated, cropped and normalised at random; floats are
        taken as they are.
      settings: of the crop and the rotation.

    Returns:
      f32[B, S, S, 3].
    """
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    cropped = augmentation.random_rotation_and_crop(
        key, images, settings.image_size, settings.max_rotation
    )
    return augmentation.normalise(cropped)
