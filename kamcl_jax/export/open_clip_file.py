"""The weights of a published model under open_clip's names, for that program to go on with."""

import jax
import numpy as np
from safetensors.numpy import save

from kamcl_jax.config import encoders
from kamcl_jax.errors import ExportError
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.models.towers import CONCEPT_HEAD
from kamcl_jax.weights.open_clip import open_clip_tensors

NAME = "open_clip_model.safetensors"
"""The file's name, which open_clip's own models have on Hugging Face."""


def fits(model: TrainedModel) -> bool:
    """Returns whether open_clip can compute what a model does: it has no place for concepts."""
    if encoders.published(model.config) is None:
        return False
    heads = (model.variables["params"][tower].get(CONCEPT_HEAD, {}) for tower in ("image", "text"))
    return not any(np.any(head.get("gate", 0)) for head in heads)


def contents(model: TrainedModel) -> bytes:
    """Returns the contents of the file, f32 tensors that `load_state_dict(strict=True)` accepts.

    Raises:
      ExportError: Its encoders are of another kind, or concepts are added to its embeddings.
    """
    preset = encoders.published(model.config)
    if preset is None:
        raise ExportError(
            "the model has no encoders of a published CLIP or SigLIP, which are all that open_clip "
            "computes (config.encoders.preset names one)"
        )
    if not fits(model):
        raise ExportError(
            "concepts are added to the embeddings, for which open_clip has no place "
            "(config.encoders.hybrid=False trains without)"
        )
    return save(open_clip_tensors(preset, jax.device_get(model.variables)), {"format": "pt"})
