"""A trained or published model by itself: it encodes sentences and images without a data set."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import ml_collections
import numpy as np
from PIL import Image

from input_pipeline.errors import DataError
from input_pipeline.images.fitting import Fitting
from input_pipeline.language.concepts import Concepts
from input_pipeline.language.texts import Texts
from input_pipeline.language.tokenizer import Tokenizer
from input_pipeline.language.tokens import tokenize
from input_pipeline.language.vocabulary import UNKNOWN, Vocabulary, stop_words, word_form
from input_pipeline.language.word_tokenizer import WordTokenizer, cut
from input_pipeline.splits import assembly
from kamcl_jax.config import build, encoders, recipe
from kamcl_jax.inference import embed
from kamcl_jax.inference.embed import Encoded, Encoders, Variables
from kamcl_jax.inference.image_sources import ImageSource, LazyImages
from kamcl_jax.parallel.mesh import replicated
from kamcl_jax.ranking.scores import inner_products
from kamcl_jax.runs import folder
from kamcl_jax.runs.record import config_of
from kamcl_jax.step.state import TrainState
from kamcl_jax.weights import published_model, starting_weights

TOKENS_MULTIPLE = 16
"""Captions are padded to a multiple of so many tokens, so that few lengths are compiled."""


@dataclasses.dataclass(frozen=True)
class Words:
    """The words that a model was trained with.

    Attributes:
      vocabulary: The words of the training captions; a text encoder that is trained from scratch
        has a row for each, in this order.
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
      config: The config of the training, for the devices here.
      encoders: The compiled encoders.
      variables: The parameters and BatchNorm statistics of the encoders that retrieve, which
        `config.evaluation.encoders` names.
      tokenizer: What the text encoder reads captions with.
      vocabulary: The words of the training captions.
      concepts: The words that captions may name, and that both encoders predict.
      concept_width: The width of the word concepts.
    """

    step: int
    config: ml_collections.ConfigDict
    encoders: Encoders
    variables: Variables
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    concepts: Concepts
    concept_width: int

    @property
    def fitting(self) -> Fitting:
        """How images of any size become squares for the image encoder."""
        return encoders.fitting(self.config)

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
          captions: M sentences. A sentence that is too long is cut, see `is_cut`. Words that a
            model from scratch does not know count as one unknown word.
          batch_size: How many are encoded at once; None means `config.evaluation.batch_size`.
        """
        inputs, size = self._read(captions), self._batch_size(batch_size)
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
        behind `data.max_tokens`, which are not read. A published model knows pieces of words, and
        so every word.
        """
        if not isinstance(self.tokenizer, WordTokenizer):
            return []
        words = dict.fromkeys(cut(tokenize(caption), self.config.data.max_tokens))
        return [
            word
            for word in words
            if word not in self.vocabulary
            and word not in stop_words()
            and any(letter.isalnum() for letter in word)
        ]

    def is_cut(self, caption: str) -> bool:
        """Returns whether a sentence is so long that its end is not read."""
        return self.tokenizer.is_cut(caption)

    def _batch_size(self, asked: int | None) -> int:
        return self.config.evaluation.batch_size if asked is None else asked

    def _rows(self, images: np.ndarray | Sequence[ImageSource]) -> embed.Rows:
        side = self.config.image_size
        if isinstance(images, str | Path | Image.Image):
            raise DataError("Images are a list, not a single one.")
        if not len(images):
            raise DataError("There are no images to encode.")
        if not isinstance(images, np.ndarray):
            return LazyImages(images, side, self.fitting)
        if images.shape[1:] != (side, side, 3) or images.dtype != np.uint8:
            raise DataError(
                f"Images in one array must be uint8[N, {side}, {side}, 3], not "
                f"{images.dtype}{list(images.shape)}; a list takes images of any size."
            )
        return images

    def _read(self, captions: Sequence[str]) -> embed.Captions:
        if isinstance(captions, str):
            raise DataError("Captions are a list of sentences, not a single one.")
        if not len(captions):
            raise DataError("There are no captions to encode.")
        texts = Texts(
            image_ids=list(range(len(captions))),
            file_names=[""] * len(captions),
            captions=[[caption] for caption in captions],
        )
        for caption, words in zip(captions, texts.tokens, strict=True):
            if not words:
                raise DataError(f"The caption {caption!r} has no word in it.")
        tokens, lengths = self.tokenizer.encode(captions, TOKENS_MULTIPLE)
        max_tokens, width = self.config.data.max_tokens, self.concept_width
        return tokens, lengths, assembly.word_concepts(texts, self.concepts, max_tokens, width)


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
        config = build.on_these_devices(config_of(record))
        starting_weights.check_frozen_file(config)
        words = Words(record["vocabulary"], record["concepts"], record["concept_width"])
        one_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = _abstract_state(config, words)
        retrieving = build.retrieving_fields(config)
        variables = checkpoints.restore_fields(step, like, one_device, retrieving)
        if like.frozen:
            frozen = build.initial_state(config, words.vocabulary, words.concept_width).frozen
            checkpoints.check_frozen(step, frozen, build.source_of_frozen(config))
            variables = build.whole_variables(config, variables, frozen)
    tokenizer = encoders.tokenizer(config, folder.written_tokenizer(workdir))
    return assemble(step, config, words, variables, tokenizer)


def abstract_variables(config: ml_collections.ConfigDict, words: Words) -> Variables:
    """Returns the shapes and dtypes of the variables of a model with that config and words."""
    abstract = _abstract_state(config, words)
    return jax.eval_shape(partial(build.retrieving_variables, config), abstract)


def open_published(
    path: str | Path, preset: str, vocabulary: str | Path = "", cleaning: str = "canonicalize"
) -> TrainedModel:
    """Opens a published CLIP or SigLIP, which knows no concepts.

    Args:
      path: The weights, see `published_model.read_published`.
      preset: The model that they are of.
      vocabulary: The tokeniser's file or its folder; '' looks beside the weights and, for CLIP, in
        an installed open_clip_torch.
      cleaning: How captions are cleaned for a SigLIP: 'canonicalize' or 'lower'.

    Raises:
      ConfigError: There is no such preset.
      PretrainedError: There are no such weights, or the file does not hold such a model.
      DataError: The vocabulary is not found, or not read.
    """
    config = encoders.config_of_published(path, preset, vocabulary, cleaning)
    tokenizer = encoders.tokenizer(config)  # before the weights, which take longer
    variables = published_model.read_published(path, preset)
    return assemble(0, config, Words([UNKNOWN], [], 0), variables, tokenizer)


def assemble(
    step: int,
    config: ml_collections.ConfigDict,
    words: Words,
    variables: Variables,
    tokenizer: Tokenizer | None = None,
) -> TrainedModel:
    """Makes a model on these devices.

    Args:
      step: The training step after which it was saved.
      config: The config of the training.
      words: The words of the training.
      variables: As `abstract_variables` says.
      tokenizer: That of a published model's text encoder; None reads the words of the training.
    """
    config = build.on_these_devices(config)
    layout = replicated(build.check_with_devices(config, trains=False))
    concepts, vocabulary = config.concepts, Vocabulary(words.vocabulary)
    return TrainedModel(
        step=step,
        config=config,
        encoders=embed.make_encoders(
            build.make_model(config, words.num_tokens, words.concept_width),
            layout,
            recipe.compute_dtype(config),
            encoders.normalisation(config),
        ),
        variables=jax.device_put(variables, layout.whole),
        tokenizer=tokenizer or WordTokenizer(vocabulary, config.data.max_tokens),
        vocabulary=vocabulary,
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
