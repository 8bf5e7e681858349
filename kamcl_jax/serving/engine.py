"""Answers the page's questions with the index and its model, for any number of threads."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from kamcl_jax.inference import image_sources
from kamcl_jax.inference.model import TOKENS_MULTIPLE
from kamcl_jax.search import searching
from kamcl_jax.search.index import ImageIndex
from kamcl_jax.search.searching import Found


class Concept(NamedTuple):
    """A concept that the model sees in an image.

    Attributes:
      word: that names it.
      probability: that the image shows it.
    """

    word: str
    probability: float


class Seen(NamedTuple):
    """What the model says of an image.

    Attributes:
      embedding: f32[E], a unit vector.
      concepts: f32[C], a probability for each of `model.concepts.words`.
    """

    embedding: np.ndarray
    concepts: np.ndarray


@dataclass(frozen=True)
class Engine:
    """An index that one thread at a time searches: the device has one queue and one memory.

    Attributes:
      index: to search.
      num_results: found at most; always as many are sought, so that one program serves all.
    """

    index: ImageIndex
    num_results: int
    _device: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def warm_up(self, query_tokens: int) -> None:
        """Compiles everything that questions need, so that none has to wait for it.

        Args:
          query_tokens: of the longest query that will be asked.
        """
        side = self.index.model.config.image_size
        self.by_embedding(self.look_at(Image.new("RGB", (side, side))).embedding)
        for num_tokens in range(TOKENS_MULTIPLE, query_tokens + TOKENS_MULTIPLE, TOKENS_MULTIPLE):
            self._embed(" ".join(["plane"] * min(num_tokens, query_tokens)))

    def by_text(self, query: str) -> list[Found]:
        """Returns the images nearest to a sentence, the nearest first.

        Raises:
          DataError: it has no word.
        """
        return self.by_embedding(self._embed(query))

    def by_row(self, row: int) -> list[Found]:
        """Returns the images nearest to one of the index, without it."""
        found = self._search(self.index.embeddings[row])
        return [other for other in found if other.row != row][: self.num_results]

    def by_embedding(self, embedding: np.ndarray) -> list[Found]:
        """Returns the images nearest to f32[E], the nearest first."""
        return self._search(embedding)[: self.num_results]

    def look_at(self, image: Image.Image) -> Seen:
        """Returns what the model says of an image of any size."""
        model = self.index.model
        pixels = image_sources.pixels(image, model.config.image_size)
        with self._device:
            encoded = model.encode_images_with_concepts(pixels[None], batch_size=1)
        return Seen(np.asarray(encoded.embeddings)[0], np.asarray(encoded.concepts)[0])

    def most_probable(self, probabilities: np.ndarray, count: int) -> list[Concept]:
        """Returns the concepts that the model sees in an image, the most probable first.

        Args:
          probabilities: [C], of all concepts.
          count: how many; all, if there are fewer.
        """
        values = np.nan_to_num(np.asarray(probabilities, np.float32))
        best = np.argsort(-values, kind="stable")[:count]
        words = self.index.model.concepts.words
        return [Concept(words[column], float(values[column])) for column in best]

    def telling_words(self, rows: Sequence[int]) -> list[str]:
        """Returns for each of some images the concept that tells it best from the others.

        Args:
          rows: of the images; several may have the same concept, which is returned once.
        """
        probabilities = np.nan_to_num(np.asarray(self.index.concepts[list(rows)], np.float32))
        if not probabilities.size:
            return []
        columns = (probabilities - probabilities.mean(axis=0)).argmax(axis=1)
        words = self.index.model.concepts.words
        return list(dict.fromkeys(words[column] for column in columns))

    def _embed(self, query: str) -> np.ndarray:
        with self._device:
            return self.index.model.encode_texts([query], batch_size=1)[0]

    def _search(self, embedding: np.ndarray) -> list[Found]:
        # One more than asked for: an image finds itself first.
        with self._device:
            (found,) = searching.search(self.index, embedding[None], self.num_results + 1)
        return found
