"""What changes over training, as functions of the step count: the two steps and the learning rate.

All return traced values, so that crossing from one step of the schedule to the next never
recompiles the training step.
"""

import jax
import jax.numpy as jnp
import optax


def alignment_weight(
    step: jax.Array,
    steps_per_epoch: int,
    from_epoch: int,
    weight: float,
    ramp_epochs: float = 0,
) -> jax.Array:
    """Returns the weight of the concept alignment, f32[]: 0 in step 1 of the schedule.

    Args:
      step: i32[], the training steps already taken.
      steps_per_epoch: The steps of an epoch.
      from_epoch: The first epoch of step 2, counted from 0; 11 in the paper's RSICD schedule.
      weight: The weight in step 2.
      ramp_epochs: Over how many epochs the weight grows, in a straight line; 0 in the paper.
    """
    first_step = min(from_epoch * steps_per_epoch, jnp.iinfo(jnp.int32).max)
    grown: float | jax.Array = weight
    if ramp_epochs:
        grown *= jnp.minimum((step - first_step + 1) / (ramp_epochs * steps_per_epoch), 1)
    return jnp.where(step >= first_step, grown, 0.0).astype(jnp.float32)


def step_decay(
    initial: float, factor: float, every_epochs: int, steps_per_epoch: int, taken: int = 0
) -> optax.Schedule:
    """Returns a learning rate that is multiplied by `factor` every so many epochs.

    This is the published schedule: with `every_epochs=10`, the first factor applies from epoch
    index 9 on, the second from 19 on (epochs count from 0). `taken` steps were taken before.
    """

    def learning_rate(step):
        epoch = (jnp.asarray(step) + taken) // steps_per_epoch
        return initial * factor ** ((epoch + 1) // every_epochs)

    return learning_rate


def warmed_up(after: optax.Schedule, warmup_steps: int) -> optax.Schedule:
    """Returns a learning rate that grows in a straight line, and then goes on as `after` does.

    Step s of the first `warmup_steps` has (s + 1) / warmup_steps of the rate that `after` begins
    with; `after` counts its steps from the end of the warm-up.
    """
    if not warmup_steps:
        return after

    def learning_rate(step):
        step = jnp.asarray(step)
        share = jnp.minimum((step + 1) / warmup_steps, 1)
        return share * after(jnp.maximum(step - warmup_steps, 0))

    return learning_rate


def keep_time(before: optax.OptState, after: optax.OptState) -> optax.OptState:
    """Returns an optimiser's state before an update, but with the time after it.

    A skipped update leaves the moments as they are, and the count of them that Adam divides by. The
    learning rate's count goes on: its schedule is one of steps, as the alignment's is.
    """

    def is_schedule(state) -> bool:
        return isinstance(state, optax.ScaleByScheduleState)

    return jax.tree.map(
        lambda old, new: new if is_schedule(old) else old, before, after, is_leaf=is_schedule
    )
