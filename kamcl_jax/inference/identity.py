"""What the embeddings of a trained model depend on, as two hashes that can be kept and compared."""

import hashlib
import json
from typing import Any, NamedTuple

import flax
import numpy as np

from kamcl_jax.config.fields import Decides, decides, flatten
from kamcl_jax.inference.embed import Variables
from kamcl_jax.inference.model import TrainedModel


class ModelIdentity(NamedTuple):
    """Two models of the same identity embed alike.

    The code of encoders that a config names by their import path is not looked at.

    Attributes:
      image_encoder: The hash of the weights, settings and words that an image's embedding and
        concept probabilities depend on.
      text_encoder: The hash of those that a caption's depend on.
    """

    image_encoder: str
    text_encoder: str


def identity(model: TrainedModel) -> ModelIdentity:
    """Returns the identity of a model."""
    words, leaves, tokenizer = model.words, flatten(model.config), model.tokenizer.identity
    by_field = {name: decides(name, leaves) for name in leaves}
    counted = (Decides.EMBEDDINGS, Decides.CAPTIONS)
    of_images = {name: leaves[name] for name in leaves if by_field[name] is Decides.EMBEDDINGS}
    of_texts = {name: leaves[name] for name in leaves if by_field[name] in counted}
    concepts = [words.concepts, words.concept_width]
    return ModelIdentity(
        _hash([of_images, concepts], _of_tower(model.variables, "image")),
        _hash([of_texts, concepts, tokenizer], _of_tower(model.variables, "text")),
    )


def _of_tower(variables: Variables, tower: str) -> dict[str, Any]:
    return {collection: towers.get(tower, {}) for collection, towers in variables.items()}


def _hash(settings: Any, variables: Variables) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(flax.traverse_util.flatten_dict(variables, sep=".").items()):
        digest.update(f"{name} {tensor.dtype}{tensor.shape}".encode())
        digest.update(np.asarray(tensor, order="C").data)
    return digest.hexdigest()
