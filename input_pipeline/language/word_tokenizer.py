"""The tokeniser of models that are trained from scratch: whole words of a vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from input_pipeline.language.tokenizer import digest, padded, rounded_up
from input_pipeline.language.tokens import tokenize
from input_pipeline.language.vocabulary import PADDING_ID, UNKNOWN, Vocabulary


def cut(words: Sequence[str], max_tokens: int) -> Sequence[str]:
    """Returns the first `max_tokens` words of a caption, or all if that is 0."""
    return words[:max_tokens] if max_tokens else words


@dataclass(frozen=True)
class WordTokenizer:
    """Reads a caption word by word, as a `Tokenizer`.

    Attributes:
      vocabulary: Gives the words their ids.
      max_tokens: Longer captions are cut to this many words; 0 keeps them whole.
    """

    vocabulary: Vocabulary
    max_tokens: int = 0

    @cached_property
    def identity(self) -> str:
        """The kind, the most words that are read, and a digest of the vocabulary."""
        return f"words-{self.max_tokens}-{digest(self.vocabulary.words)}"

    def encode(self, captions: Sequence[str], multiple: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Returns tokens i32[M, T] and lengths i32[M]; see `Tokenizer.encode`.

        A caption without a word becomes one unknown word, as an encoder needs one at least.
        """
        words = (cut(tokenize(caption), self.max_tokens) for caption in captions)
        ids = [self.vocabulary.encode(read or [UNKNOWN]) for read in words]
        return padded(ids, rounded_up(max(map(len, ids), default=0), multiple), PADDING_ID)

    def is_cut(self, caption: str) -> bool:
        """Returns whether a caption has more than `max_tokens` words."""
        return bool(self.max_tokens) and len(tokenize(caption)) > self.max_tokens

    def write(self, folder: Path) -> None:
        """Writes nothing: the words are learnt from captions, and are kept with the model."""
