"""A trained model from a checkpoint alone: it embeds sentences and images without a data set."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np

from input_pipeline import assembly
from input_pipeline.concepts import Concepts
from input_pipeline.errors import DataError
from input_pipeline.lemmatization import english_lemma, unchanged
from input_pipeline.texts import Texts
from input_pipeline.vocabulary import Vocabulary
from kamcl_jax import best_checkpoint, evaluation, from_config, run_record
from kamcl_jax.evaluation import Encoders, Variables

TOKENS_MULTIPLE = 16
"""Captions are padded to a multiple of as many tokens, so that few lengths are compiled."""


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """What a checkpoint holds that is needed to retrieve.

    Attributes:
      step: of the checkpoint.
      config: of the training.
      encoders: compiled.
      variables: parameters and BatchNorm statistics of the query encoders.
      vocabulary: of the text encoder.
      concepts: that captions may name, and that both encoders predict.
      concept_width: width of the word concepts.
    """

    step: int
    config: ml_collections.ConfigDict
    encoders: Encoders
    variables: Variables
    vocabulary: Vocabulary
    concepts: Concepts
    concept_width: int

    def embed_captions(self, captions: Sequence[str], batch_size: int = 100) -> np.ndarray:
        """Embeds sentences -> f32[M, E], unit vectors.

        With `config.caption_padding='release'` they depend on the longest of all `captions`.

        Raises:
          DataError: there is no sentence, or one has no word.
        """
        if not captions:
            raise DataError("There are no captions to embed.")
        texts = Texts(
            image_ids=list(range(len(captions))),
            file_names=[""] * len(captions),
            captions=[[caption] for caption in captions],
        )
        for caption, tokens in zip(captions, texts.tokens, strict=True):
            if not tokens:
                raise DataError(f"The caption {caption!r} has no word in it.")
        longest = assembly.longest_caption([texts], self.config.data.max_tokens)
        length = -(-longest // TOKENS_MULTIPLE) * TOKENS_MULTIPLE
        arrays = assembly.caption_arrays(
            texts, self.vocabulary, self.concepts, length, self.concept_width
        )
        return evaluation.embed_texts(
            self.encoders,
            self.variables,
            arrays["tokens"],
            arrays["lengths"],
            arrays["word_concepts"],
            batch_size,
        )

    def embed_images(self, images: np.ndarray, batch_size: int = 100) -> np.ndarray:
        """Embeds uint8[N, S, S, 3] of the config's image size -> f32[N, E], unit vectors.

        Raises:
          DataError: there is no image, or they are of another shape or type.
        """
        side = self.config.image_size
        if images.shape[1:] != (side, side, 3) or images.dtype != np.uint8 or not len(images):
            raise DataError(
                f"Images must be uint8[N, {side}, {side}, 3], not "
                f"{images.dtype}{list(images.shape)}."
            )
        return evaluation.embed_images(self.encoders, self.variables, images, batch_size)


def open_trained(workdir: Path, step: int | None = None) -> TrainedModel:
    """Opens a run's checkpoint.

    Args:
      workdir: of the run.
      step: of the checkpoint; if None, the one with the best validation, or the latest if none was
        validated.

    Raises:
      ConfigError: there is no checkpoint.
      CheckpointError: it cannot be read.
    """
    with best_checkpoint.open_checkpoints(workdir) as checkpoints:
        if step is None:
            step = checkpoints.best_or_latest
        record = checkpoints.record(step)
        config = from_config.on_these_devices(run_record.config_of(record))
        vocabulary = Vocabulary(record["vocabulary"])
        num_tokens, width = len(vocabulary) + 1, record["concept_width"]
        like = from_config.abstract_state(config, num_tokens, width)
        mesh = from_config.check_with_devices(config, trains=False)
        layout = from_config.make_layout(config, mesh, like)
        variables = checkpoints.restore_fields(step, like, layout.state, ("params", "batch_stats"))
    form = english_lemma() if config.concepts.lemmatize else unchanged
    return TrainedModel(
        step=step,
        config=config,
        encoders=evaluation.make_encoders(
            from_config.make_model(config, num_tokens, width),
            layout,
            from_config.compute_dtype(config),
        ),
        variables=variables,
        vocabulary=vocabulary,
        concepts=Concepts(record["concepts"], min_repeats=config.concepts.min_repeats, form=form),
        concept_width=width,
    )
