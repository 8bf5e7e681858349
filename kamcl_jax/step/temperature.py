"""A temperature that is learnt with the encoders, as CLIP does (Radford et al. 2021)."""

from typing import Any

import jax
import jax.numpy as jnp

from kamcl_jax.models.towers import LOGIT_SCALE

LARGEST_SCALE = 100.0
"""The scale that CLIP lets similarities grow to: a temperature of 0.01."""


def learned(params: Any) -> jax.Array | None:
    """Returns the temperature f32[] that parameters hold, or None if they hold none."""
    if LOGIT_SCALE not in params:
        return None
    return jnp.exp(-params[LOGIT_SCALE])


def clamped(params: Any) -> Any:
    """Returns parameters whose logit scale, where they have one, is `LARGEST_SCALE` at most."""
    if LOGIT_SCALE not in params:
        return params
    return {**params, LOGIT_SCALE: jnp.minimum(params[LOGIT_SCALE], jnp.log(LARGEST_SCALE))}
