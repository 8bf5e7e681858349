"""A temperature and a bias of similarities that are learnt with the encoders.

CLIP learns the one (Radford et al. 2021), SigLIP both (Zhai et al. 2023).
"""

from typing import Any

import jax
import jax.numpy as jnp

from kamcl_jax.models.towers import LOGIT_BIAS, LOGIT_SCALE

LARGEST_SCALE = 100.0
"""The scale that CLIP lets similarities grow to: a temperature of 0.01."""


def learned(params: Any) -> jax.Array | None:
    """Returns the temperature f32[] that parameters hold, or None if they hold none."""
    if LOGIT_SCALE not in params:
        return None
    return jnp.exp(-params[LOGIT_SCALE])


def learned_bias(params: Any) -> jax.Array | None:
    """Returns the bias f32[] of the sigmoid loss that parameters hold, or None."""
    return params.get(LOGIT_BIAS)


def clamped(params: Any) -> Any:
    """Returns parameters whose logit scale, where they have one, is `LARGEST_SCALE` at most.

    A model with a bias of the logits, as SigLIP is, has no such limit: its scale is published as
    larger.
    """
    if LOGIT_SCALE not in params or LOGIT_BIAS in params:
        return params
    return {**params, LOGIT_SCALE: jnp.minimum(params[LOGIT_SCALE], jnp.log(LARGEST_SCALE))}
