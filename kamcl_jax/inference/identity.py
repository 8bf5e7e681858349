"""What the embeddings of a trained model depend on, as two hashes that can be kept and compared."""

import hashlib
import json
from typing import Any, NamedTuple

import flax
import numpy as np

from kamcl_jax.config.fields import flatten, free_to_change
from kamcl_jax.inference.embed import Variables
from kamcl_jax.inference.model import TrainedModel

TRAINING_ONLY = (
    *("seed", "fold", "num_folds", "num_epochs", "max_steps", "batch_size"),
    *("queue_length", "momentum", "momentum_coverage", "temperature"),
    *("log_every_steps", "gradient_accumulation", "not_finite"),
    "num_concepts",  # the most that there may be; the concepts themselves count
    *("data.name", "data.dir", "data.prepared_dir", "data.options", "data.bad_images"),
    *("data.split_sizes", "data.validation", "data.validation_fraction", "data.vocabulary_from"),
    *("data.min_word_count", "data.pad_concepts", "data.labels_by", "data.residency"),
    *("concepts.min_repeats", "concepts.stop_words"),
    *("mesh", "checkpoint", "augmentation", "loss", "schedule", "optimizer", "evaluation"),
    *("image_encoder.rematerialise", "image_encoder.pooling_kernel", "image_encoder.pretrained"),
    *("text_encoder.dropout", "text_encoder.pretrained"),
)
"""Fields of a config, or groups of them, that say how a model is trained, or how fast it computes.

Once the model is trained, no embedding depends on them. All other fields count, those to come
included. With the release's padding, `evaluation.batch_size` counts, too.
"""

CAPTIONS_ONLY = (
    *("caption_padding", "evaluation.batch_size"),
    *("data.max_tokens", "concepts.lemmatize", "text_encoder"),
)
"""Fields of a config, or groups of them, that images have nothing to do with."""


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
    words, fields = model.words, flatten(model.config)
    counted = {name: fields[name] for name in fields if not _among(name, TRAINING_ONLY)}
    if "evaluation.batch_size" not in free_to_change(fields):
        counted["evaluation.batch_size"] = fields["evaluation.batch_size"]
    of_images = {name: counted[name] for name in counted if not _among(name, CAPTIONS_ONLY)}
    concepts = [words.concepts, words.concept_width]
    return ModelIdentity(
        _hash([of_images, concepts], _of_tower(model.variables, "image")),
        _hash([counted, concepts, words.vocabulary], _of_tower(model.variables, "text")),
    )


def _among(name: str, fields_or_groups: tuple[str, ...]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in fields_or_groups)


def _of_tower(variables: Variables, tower: str) -> dict[str, Any]:
    return {collection: towers.get(tower, {}) for collection, towers in variables.items()}


def _hash(settings: Any, variables: Variables) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(flax.traverse_util.flatten_dict(variables, sep=".").items()):
        digest.update(f"{name} {tensor.dtype}{tensor.shape}".encode())
        digest.update(np.asarray(tensor, order="C").data)
    return digest.hexdigest()
