"""A trained model by itself: it encodes sentences and images without a data set."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np
from PIL import Image

from input_pipeline.errors import DataError
from input_pipeline.language.concepts import Concepts
from input_pipeline.language.texts import Texts
from input_pipeline.language.tokens import tokenize
from input_pipeline.language.vocabulary import Vocabulary, stop_words, word_form
from input_pipeline.language.word_tokenizer import WordTokenizer, cut
from input_pipeline.splits import assembly
from kamcl_jax.config import build, recipe
from kamcl_jax.inference import embed
from kamcl_jax.inference.embed import Encoded, Encoders, Variables
from kamcl_jax.inference.image_sources import ImageSource, LazyImages
from kamcl_jax.parallel.mesh import replicated
from kamcl_jax.ranking.scores import inner_products
from kamcl_jax.runs.record import config_of
from kamcl_jax.step.state import TrainState

TOKENS_MULTIPLE = 16
"""Captions are padded to a multiple of so many tokens, so that few lengths are compiled."""


@dataclasses.dataclass(frozen=True)
class Words:
    """The words that a model was trained with.

    Attributes:
      vocabulary: The words of the text encoder, in the order of its rows.
      concepts: The words that captions may name, and that both encoders predict.
      concept_width: The width of the word concepts, more than there are `concepts` if padded.
    """

    vocabulary: list[str]
    concepts: list[str]
    concept_width: int

    @property
    def num_tokens(self) -> int:
        """The rows of the text encoder's embedding; row 0 is the padding."""
        return len(self.vocabulary) + 1


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """What is needed to retrieve.

    Attributes:
      step: The training step after which the model was saved.
      config: The config of the training.
      encoders: The compiled encoders.
      variables: The parameters and BatchNorm statistics of the encoders that retrieve, which
        `config.evaluation.encoders` names.
      vocabulary: The words of the text encoder.
      concepts: The words that captions may name, and that both encoders predict.
      concept_width: The width of the word concepts.
    """

    step: int
    config: ml_collections.ConfigDict
    encoders: Encoders
    variables: Variables
    vocabulary: Vocabulary
    concepts: Concepts
    concept_width: int

    @property
    def words(self) -> Words:
        """The vocabulary and the concepts as plain lists."""
        vocabulary, concepts = list(self.vocabulary.words), list(self.concepts.words)
        return Words(vocabulary, concepts, self.concept_width)

    def encode_texts(self, captions: Sequence[str], batch_size: int | None = None) -> np.ndarray:
        """Embeds sentences -> f32[M, E], unit vectors.

        With `config.caption_padding='release'` the embedding of a caption depends on the longest
        caption of its batch, and so on the size of the batches.

        Args:
          captions: M sentences. Words that the model does not know count as one unknown word, and
            a sentence is cut where the training cut its captions (`config.data.max_tokens`).
          batch_size: How many are encoded at once; None means `config.evaluation.batch_size`.
        """
        arrays, size = self._caption_arrays(captions), self._batch_size(batch_size)
        inputs = (arrays["tokens"], arrays["lengths"], arrays["word_concepts"])
        return embed.embed_texts(self.encoders, self.variables, inputs, size)

    def encode_images(
        self, images: np.ndarray | Sequence[ImageSource], batch_size: int | None = None
    ) -> np.ndarray:
        """Embeds images -> f32[N, E], unit vectors.

        Args:
          images: N files, arrays or PIL images of any size, or one array u8[N, S, S, 3] of the
            config's image size. Files are read batch by batch.
          batch_size: How many are encoded at once; None means `config.evaluation.batch_size`.
        """
        return np.asarray(self.encode_images_with_concepts(images, batch_size).embeddings)

    def encode_images_with_concepts(
        self, images: np.ndarray | Sequence[ImageSource], batch_size: int | None = None
    ) -> Encoded:
        """Embeds images as `encode_images` does, with a probability f32[N, C] for each concept."""
        rows, size = self._rows(images), self._batch_size(batch_size)
        encoded = embed.encode_images(self.encoders, self.variables, rows, size)
        return Encoded(encoded.embeddings, encoded.concepts[:, : len(self.concepts)])

    def similarity(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """Returns the cosines f32[N, M] of embeddings f32[N, E] and f32[M, E].

        Where there are too many to have all at once, `kamcl_jax.ranking.top_k` finds the best.
        """
        return np.asarray(inner_products(images, texts))

    def unknown_words(self, caption: str) -> list[str]:
        """Returns the words of a sentence that say nothing to the model, each once, in order.

        Stop words and punctuation, which no vocabulary has, are not among them, nor are words
        behind `data.max_tokens`, which are not read.
        """
        words = dict.fromkeys(cut(tokenize(caption), self.config.data.max_tokens))
        return [
            word
            for word in words
            if word not in self.vocabulary
            and word not in stop_words()
            and any(letter.isalnum() for letter in word)
        ]

    def is_cut(self, caption: str) -> bool:
        """Returns whether a sentence is longer than `data.max_tokens`, which cuts it."""
        return WordTokenizer(self.vocabulary, self.config.data.max_tokens).is_cut(caption)

    def _batch_size(self, asked: int | None) -> int:
        return self.config.evaluation.batch_size if asked is None else asked

    def _rows(self, images: np.ndarray | Sequence[ImageSource]) -> embed.Rows:
        side = self.config.image_size
        if isinstance(images, str | Path | Image.Image):
            raise DataError("Images are a list, not a single one.")
        if not len(images):
            raise DataError("There are no images to encode.")
        if not isinstance(images, np.ndarray):
            return LazyImages(images, side)
        if images.shape[1:] != (side, side, 3) or images.dtype != np.uint8:
            raise DataError(
                f"Images in one array must be uint8[N, {side}, {side}, 3], not "
                f"{images.dtype}{list(images.shape)}; a list takes images of any size."
            )
        return images

    def _caption_arrays(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
        if isinstance(captions, str):
            raise DataError("Captions are a list of sentences, not a single one.")
        if not len(captions):
            raise DataError("There are no captions to encode.")
        texts = Texts(
            image_ids=list(range(len(captions))),
            file_names=[""] * len(captions),
            captions=[[caption] for caption in captions],
        )
        for caption, tokens in zip(captions, texts.tokens, strict=True):
            if not tokens:
                raise DataError(f"The caption {caption!r} has no word in it.")
        max_tokens = self.config.data.max_tokens
        longest = assembly.longest_caption([texts], max_tokens)
        return assembly.caption_arrays(
            texts,
            self.vocabulary,
            self.concepts,
            max_tokens=max_tokens,
            length=-(-longest // TOKENS_MULTIPLE) * TOKENS_MULTIPLE,
            width=self.concept_width,
        )


def open_trained(workdir: Path, step: int | None = None) -> TrainedModel:
    """Opens a run's checkpoint; no data set is needed.

    Without a step it is the one with the best validation, or the latest if none was validated.
    """
    # Imported here, since orbax comes with it, which an exported model does not need.
    from kamcl_jax.runs.checkpoints import open_checkpoints

    with open_checkpoints(workdir) as checkpoints:
        if step is None:
            step = checkpoints.best_or_latest
        record = checkpoints.record(step)
        config = config_of(record)
        words = Words(record["vocabulary"], record["concepts"], record["concept_width"])
        one_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = _abstract_state(build.on_these_devices(config), words)
        retrieving = build.retrieving_fields(config)
        variables = checkpoints.restore_fields(step, like, one_device, retrieving)
    return assemble(step, config, words, variables)


def abstract_variables(config: ml_collections.ConfigDict, words: Words) -> Variables:
    """Returns the shapes and dtypes of the variables of a model with that config and words."""
    return build.retrieving_variables(config, _abstract_state(config, words))


def assemble(
    step: int, config: ml_collections.ConfigDict, words: Words, variables: Variables
) -> TrainedModel:
    """Makes a trained model, whose variables are as `abstract_variables` says, on these devices."""
    config = build.on_these_devices(config)
    layout = replicated(build.check_with_devices(config, trains=False))
    concepts = config.concepts
    return TrainedModel(
        step=step,
        config=config,
        encoders=embed.make_encoders(
            build.make_model(config, words.num_tokens, words.concept_width),
            layout,
            recipe.compute_dtype(config),
        ),
        variables=jax.device_put(variables, layout.whole),
        vocabulary=Vocabulary(words.vocabulary),
        concepts=Concepts(
            words.concepts,
            min_repeats=concepts.min_repeats,
            form=word_form(concepts.lemmatize),
            label_scale=concepts.label_scale,
        ),
        concept_width=words.concept_width,
    )


def _abstract_state(config: ml_collections.ConfigDict, words: Words) -> TrainState:
    return build.abstract_state(config, words.num_tokens, words.concept_width)
