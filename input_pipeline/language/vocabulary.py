"""The text vocabulary: captions to token ids.

Source: the vocabulary of the KAMCL release: NLTK's `word_tokenize` without NLTK's English stop
words, words seen at least five times.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

import numpy as np

from input_pipeline.errors import DataError
from input_pipeline.language.tokens import tokenize

__all__ = ["PADDING_ID", "UNKNOWN", "Vocabulary", "stop_words", "tokenize"]

UNKNOWN = "<unk>"
PADDING_ID = 0


@cache
def stop_words() -> frozenset[str]:
    """Returns NLTK's classic list of 179 English stop words."""
    text = resources.files("input_pipeline.language").joinpath("stop_words.txt").read_text("utf-8")
    return frozenset(text.split())


@dataclass(frozen=True)
class Vocabulary:
    """The words that the text encoder knows, with ids from 1; id 0 is padding.

    Attributes:
      words: in id order, so that `words[i]` has id `i + 1`; the last one is `<unk>`.
    """

    words: list[str]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.words or self.words[-1] != UNKNOWN:
            raise DataError(f"The vocabulary's last word must be '{UNKNOWN}'.")
        ids = {word: index for index, word in enumerate(self.words, start=1)}
        if len(ids) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise DataError(f"The vocabulary lists the word '{twice}' twice.")
        object.__setattr__(self, "_ids", ids)

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 5) -> Vocabulary:
        """Collects the words of the captions.

        Args:
          captions: all captions to count, in order.
          min_count: words seen less often than this are left out.

        Returns:
          The vocabulary, in the order in which the words were first seen, without stop words.
        """
        return cls.from_tokens((tokenize(caption) for caption in captions), min_count)

    @classmethod
    def from_tokens(cls, token_lists: Iterable[Sequence[str]], min_count: int = 5) -> Vocabulary:
        """Like `build`, for captions that are already tokenised."""
        counts = Counter(token for tokens in token_lists for token in tokens)
        ignored = stop_words()
        kept = [w for w, count in counts.items() if count >= min_count and w not in ignored]
        return cls([*kept, UNKNOWN])

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    @property
    def unknown_id(self) -> int:
        """The id of `<unk>`, the largest one."""
        return len(self.words)

    def encode(self, caption: str) -> np.ndarray:
        """Turns a caption into ids.

        Args:
          caption: the text; its stop words become `<unk>`, as in the release.

        Returns:
          i32[length], every entry in 1..len(self).

        Raises:
          DataError: the caption has no word in it.
        """
        return self.encode_tokens(tokenize(caption), caption)

    def encode_tokens(self, tokens: Sequence[str], caption: str | None = None) -> np.ndarray:
        """Like `encode`, for a caption that is already tokenised.

        Args:
          tokens: from `tokenize`.
          caption: the text that they come from, for the error's sentence.

        Returns:
          i32[length].

        Raises:
          DataError: there is no token.
        """
        if not tokens:
            raise DataError(f"The caption {caption or ''!r} has no word in it.")
        unknown = self.unknown_id
        return np.array([self._ids.get(token, unknown) for token in tokens], np.int32)

    def to_json(self) -> str:
        """Returns the words as a JSON object `{"words": [...]}`."""
        return json.dumps({"words": self.words}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """Reads what `to_json` wrote.

        Raises:
          DataError: the text is not such an object.
        """
        try:
            words = json.loads(text)["words"]
        except (ValueError, TypeError, KeyError):
            words = None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise DataError("The vocabulary file must be JSON with a list of strings 'words'.")
        return cls(words)
