"""The tokeniser of models that are trained from scratch: whole words of a vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from input_pipeline.language.tokenizer import digest, padded
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

    def encode(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns tokens i32[M, T], where T is the longest length, and lengths i32[M]."""
        ids = [self.ids_of(tokenize(caption)) for caption in captions]
        return padded(ids, max(map(len, ids), default=0), PADDING_ID)

    def ids_of(self, words: Sequence[str]) -> np.ndarray:
        """Returns the ids of a caption's words, i32[length], without those that are cut off.

        A caption without a word becomes one unknown word, as an encoder needs one at least.
        """
        return self.vocabulary.encode(cut(words, self.max_tokens) or [UNKNOWN])

    def is_cut(self, caption: str) -> bool:
        """Returns whether a caption has more than `max_tokens` words."""
        return bool(self.max_tokens) and len(tokenize(caption)) > self.max_tokens
