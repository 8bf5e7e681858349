"""How a config says that a model learns: its losses, its optimiser, the constants of the step."""

from functools import partial

import jax.numpy as jnp
import ml_collections
import optax
from jax.typing import DTypeLike

from kamcl_jax.config import encoders
from kamcl_jax.config.plugins import extra_terms
from kamcl_jax.models.towers import CONCEPT_HEAD, LOGIT_BIAS
from kamcl_jax.step import objective, optimizer, schedule
from kamcl_jax.step.finetuning import Finetuning
from kamcl_jax.step.momentum import Mask
from kamcl_jax.step.objective import ContrastSettings, LossTerm
from kamcl_jax.step.temperature import LARGEST_SCALE
from kamcl_jax.step.train_step import StepSettings
from kamcl_jax.weights.release_layout import release_momentum_mask


def contrast(config: ml_collections.ConfigDict) -> ContrastSettings:
    """Returns what the queries of the contrastive losses are compared with."""
    loss = config.loss
    return ContrastSettings(
        temperature=config.temperature,
        negatives=loss.negatives,
        mask_false_negatives=loss.mask_false_negatives,
        mask_unfilled=loss.mask_unfilled,
        positives=loss.positives,
        concept_share=loss.concept_share,
    )


def queue_ids(config: ml_collections.ConfigDict) -> bool:
    """Returns whether the queues keep the ids of their keys' pairs."""
    return contrast(config).needs_ids and contrast(config).from_queue


def loss_terms(config: ml_collections.ConfigDict, steps_per_epoch: int) -> tuple[LossTerm, ...]:
    """Returns the losses with their weights: the paper's three, then those that the config adds."""
    loss = config.loss
    alignment_weight = partial(
        schedule.alignment_weight,
        steps_per_epoch=steps_per_epoch,
        from_epoch=config.schedule.alignment_from_epoch,
        weight=loss.alignment_weight,
        ramp_epochs=config.schedule.alignment_ramp_epochs,
    )
    triplet = partial(objective.triplet, margin=loss.margin, reduction=loss.triplet_reduction)
    optional = (
        LossTerm("batch_contrastive", objective.batch_contrastive, loss.batch_weight),
        LossTerm("sigmoid", objective.pairwise_sigmoid, loss.sigmoid_weight),
    )
    return (
        LossTerm("triplet", triplet, loss.triplet_weight),
        LossTerm("contrastive", objective.contrastive, loss.contrastive_weight),
        LossTerm("alignment", objective.alignment, alignment_weight),
        *(term for term in optional if term.weight),
        *extra_terms(config),
    )


def make_optimizer(
    config: ml_collections.ConfigDict, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Returns Adam or Muon with its learning rate, after clipping if the config asks for it.

    Weight decay makes Adam AdamW (Loshchilov and Hutter 2019), which decays what
    `optimizer.decays` says: matrices, kernels, embeddings and positions. With Muon the kernels
    alone decay.
    """
    settings = config.optimizer
    rate = learning_rate(config, steps_per_epoch)
    if settings.name == "muon":
        chosen = optimizer.muon(rate, settings.epsilon, settings.weight_decay)
    elif settings.weight_decay:
        chosen = optax.adamw(
            rate,
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
            mask=optimizer.decays,
        )
    else:
        chosen = optax.adam(rate, eps=settings.epsilon)
    parts = [chosen]
    if settings.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(settings.clip_norm))
    published, tuning = encoders.published(config), config.finetuning
    if published is not None:
        factors = partial(
            optimizer.rate_factors,
            layer_decay=tuning.layer_decay,
            new_rate=tuning.new_rate,
            new=[CONCEPT_HEAD] if published.has_bias else [CONCEPT_HEAD, LOGIT_BIAS],
        )
        parts.append(optimizer.scaled(factors))
    return optax.chain(*parts) if len(parts) > 1 else chosen


def learning_rate(config: ml_collections.ConfigDict, steps_per_epoch: int) -> optax.Schedule:
    """Returns the learning rate as a function of the steps taken: warm-up, then decay."""
    settings, warmup = config.optimizer, config.optimizer.warmup_steps
    if settings.schedule == "cosine":
        steps = max(config.num_epochs * steps_per_epoch - warmup, 1)
        decay = optax.cosine_decay_schedule(settings.learning_rate, steps)
        return schedule.warmed_up(decay, warmup)
    decay = schedule.step_decay(
        settings.learning_rate,
        settings.decay_factor,
        settings.decay_every_epochs,
        steps_per_epoch,
        warmup,
    )
    return schedule.warmed_up(decay, warmup)


def momentum_mask(config: ml_collections.ConfigDict) -> Mask | None:
    """Returns which key parameters follow the query's; None stands for all, as in the paper."""
    return release_momentum_mask if config.momentum_coverage == "release" else None


def finetuning(config: ml_collections.ConfigDict) -> Finetuning:
    """Returns which part of the parameters trains."""
    settings = config.finetuning
    return Finetuning(
        trains=settings.trains,
        last_blocks=settings.last_blocks,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
    )


def compute_dtype(config: ml_collections.ConfigDict) -> DTypeLike | None:
    """Returns the type that the encoders compute in; None leaves that of the parameters."""
    return jnp.bfloat16 if config.dtype == "bfloat16" else None


def make_settings(config: ml_collections.ConfigDict, steps_per_epoch: int) -> StepSettings:
    """Returns the constants of the training step."""
    published = encoders.published(config)
    is_siglip = published is not None and published.family == "siglip"
    return StepSettings(
        terms=loss_terms(config, steps_per_epoch),
        contrast=contrast(config),
        image_size=config.image_size,
        max_rotation=config.augmentation.max_rotation,
        flips=config.augmentation.flips,
        quarter_turns=config.augmentation.quarter_turns,
        normalisation=encoders.normalisation(config),
        finetuning=finetuning(config),
        learns_temperature=config.learn_temperature,
        largest_scale=None if is_siglip else LARGEST_SCALE,
        momentum=config.momentum,
        momentum_mask=momentum_mask(config),
        microbatches=config.gradient_accumulation,
        dtype=compute_dtype(config),
        skip_not_finite=config.not_finite == "skip",
    )
