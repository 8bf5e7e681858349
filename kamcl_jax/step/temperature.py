"""A temperature and a bias of similarities that are learnt with the encoders.

CLIP learns the one (Radford et al. 2021), SigLIP both (Zhai et al. 2023).
"""

from typing import Any

import jax
import jax.numpy as jnp

from kamcl_jax.models.towers import LOGIT_BIAS, LOGIT_SCALE
from kamcl_jax.step.objective import ContrastSettings

LARGEST_SCALE = 100.0
"""The scale that CLIP lets its logits grow to: a temperature of 0.01. SigLIP has no such limit, and
its scale is published as larger."""


def learned(params: Any) -> jax.Array | None:
    """Returns the temperature f32[] that parameters hold, or None if they hold none."""
    if LOGIT_SCALE not in params:
        return None
    return jnp.exp(-params[LOGIT_SCALE])


def learned_bias(params: Any) -> jax.Array | None:
    """Returns the bias f32[] of the sigmoid loss that parameters hold, or None."""
    return params.get(LOGIT_BIAS)


def with_learned(
    settings: ContrastSettings, params: Any, *, moves: bool = True
) -> ContrastSettings:
    """Returns settings that have the temperature and the bias which parameters hold, if they do.

    Args:
      settings: Their temperature stands where the parameters hold none.
      params: The parameters of a `DualEncoder`.
      moves: Whether a gradient reaches the temperature.
    """
    settings = settings._replace(bias=learned_bias(params))
    found = learned(params)
    if found is None:
        return settings
    return settings._replace(temperature=found if moves else jax.lax.stop_gradient(found))


def clamped(params: Any, largest: float | None) -> Any:
    """Returns parameters whose scale of the logits, where they have one, is `largest` at most.

    They stay as they are if `largest` is None.
    """
    if largest is None or LOGIT_SCALE not in params:
        return params
    return {**params, LOGIT_SCALE: jnp.minimum(params[LOGIT_SCALE], jnp.log(largest))}
