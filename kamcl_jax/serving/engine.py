"""Answers the page's questions with the index and its model, for any number of threads."""

import functools
import threading
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from kamcl_jax.inference import image_sources
from kamcl_jax.inference.model import TOKENS_MULTIPLE
from kamcl_jax.search import searching
from kamcl_jax.search.index import ImageIndex
from kamcl_jax.search.searching import Found

AVERAGED_ROWS = 10_000
CLEARLY_ABOVE = 0.05
"""How much more probable than in the average image a concept must be to be shown."""


class Concept(NamedTuple):
    """A concept that the model sees in an image, and the probability that the image shows it."""

    word: str
    probability: float


@dataclass(frozen=True)
class Engine:
    """An index that one thread at a time searches: the device has one queue and one memory.

    Attributes:
      index: The index to search.
      num_results: How many images are found at most. As many are always looked for, so that one
        compiled program serves every query.
    """

    index: ImageIndex
    num_results: int
    _device: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def warm_up(self, query_tokens: int) -> None:
        """Compiles what queries of at most `query_tokens` need, so that no visitor waits for it."""
        side = self.index.model.config.image_size
        embedding, concepts = self.look_at(Image.new("RGB", (side, side)))
        self.by_embedding(embedding)
        self.concepts_seen(concepts, 1)
        # A published model puts a token before the words and one behind them.
        first, step = TOKENS_MULTIPLE - 2, TOKENS_MULTIPLE
        for num_words in range(first, query_tokens + step, step):
            self._embed(" ".join(["plane"] * min(num_words, query_tokens)))

    def by_text(self, query: str) -> list[Found]:
        """Returns the images nearest to a sentence, the nearest first.

        Raises:
          DataError: It has no word.
        """
        return self.by_embedding(self._embed(query))

    def by_row(self, row: int) -> list[Found]:
        """Returns the images nearest to one of the index, without it."""
        found = self._search(self.index.embeddings[row])
        return [other for other in found if other.row != row][: self.num_results]

    def by_embedding(self, embedding: np.ndarray) -> list[Found]:
        """Returns the images nearest to f32[E], the nearest first."""
        return self._search(embedding)[: self.num_results]

    def look_at(self, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        """Returns an image's embedding f32[E] and its probabilities of concepts f32[C]."""
        model = self.index.model
        pixels = image_sources.pixels(image, model.config.image_size, model.fitting)
        with self._device:
            encoded = model.encode_images_with_concepts(pixels[None], batch_size=1)
        return np.asarray(encoded.embeddings)[0], np.asarray(encoded.concepts)[0]

    def concepts_seen(self, probabilities: np.ndarray, count: int) -> list[Concept]:
        """Returns at most `count` concepts of an image with probabilities [C], the likeliest first.

        A concept that is hardly more probable than in the average image says nothing of this one.
        """
        values = np.nan_to_num(np.asarray(probabilities, np.float32))
        order = np.argsort(-values, kind="stable")
        clear = order[values[order] > self._mean_concepts[order] + CLEARLY_ABOVE]
        words = self.index.model.concepts.words
        return [Concept(words[column], float(values[column])) for column in clear[:count]]

    def distinctive_words(self, rows: list[int]) -> list[str]:
        """Returns the concepts that best tell each of some images from the others, each once."""
        probabilities = self._concepts_of(rows)
        if not probabilities.size:
            return []
        columns = (probabilities - probabilities.mean(axis=0)).argmax(axis=1)
        words = self.index.model.concepts.words
        return list(dict.fromkeys(words[column] for column in columns))

    @functools.cached_property
    def _mean_concepts(self) -> np.ndarray:
        """f32[C], the mean over at least `AVERAGED_ROWS` evenly spaced images, or over all."""
        step = max(1, len(self.index.concepts) // AVERAGED_ROWS)
        return self._concepts_of(slice(None, None, step)).mean(axis=0)

    def _concepts_of(self, rows: list[int] | slice) -> np.ndarray:
        return np.nan_to_num(np.asarray(self.index.concepts[rows], np.float32))

    def _embed(self, query: str) -> np.ndarray:
        with self._device:
            return self.index.model.encode_texts([query], batch_size=1)[0]

    def _search(self, embedding: np.ndarray) -> list[Found]:
        # One more than asked for: an image finds itself first.
        with self._device:
            (found,) = searching.search(self.index, embedding[None], self.num_results + 1)
        return found
