"""The words that a model knows: captions to token ids, and the base forms of words.

Source: the vocabulary of the KAMCL release: NLTK's `word_tokenize` without NLTK's English stop
words, words seen at least five times.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

import numpy as np

from input_pipeline.errors import DataError

UNKNOWN = "<unk>"
PADDING_ID = 0


@cache
def stop_words() -> frozenset[str]:
    """Returns NLTK's classic list of 179 English stop words."""
    text = resources.files("input_pipeline.language").joinpath("stop_words.txt").read_text("utf-8")
    return frozenset(text.split())


def unchanged(word: str) -> str:
    """Returns the word itself, where forms of a word are words of their own."""
    return word


def word_form(lemmatize: bool) -> Callable[[str], str]:
    """Returns a function from a lower-case word to the form that counts instead of it.

    With `lemmatize` that is the base form (`planes` -> `plane`), from the optional library
    simplemma, a dictionary and rules for endings. Otherwise a word is unchanged.
    """
    if not lemmatize:
        return unchanged
    try:
        import simplemma
    except ImportError:
        raise DataError(
            "Lemmatised concepts need the library simplemma (pip install simplemma)."
        ) from None

    @cache
    def lemma(word: str) -> str:
        # The dictionary takes "us" for "we" and answers in its own case.
        return simplemma.lemmatize(word, lang="en").lower() if word else word

    return lemma


@dataclass(frozen=True)
class Vocabulary:
    """The words that the text encoder knows, with ids from 1; id 0 is padding.

    Attributes:
      words: In the order of their ids, so that `words[i]` has id `i + 1`; the last is `<unk>`.
    """

    words: list[str]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # An exported vocabulary may have been edited.
        if not self.words or self.words[-1] != UNKNOWN:
            raise DataError(f"The vocabulary's last word must be '{UNKNOWN}'.")
        ids = {word: index for index, word in enumerate(self.words, start=1)}
        if len(ids) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise DataError(f"The vocabulary lists the word '{twice}' twice.")
        object.__setattr__(self, "_ids", ids)

    @classmethod
    def from_tokens(cls, token_lists: Iterable[Sequence[str]], min_count: int = 5) -> Vocabulary:
        """Collects the words of tokenised captions that are seen at least `min_count` times.

        They are in the order in which they were first seen, without stop words.
        """
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

    def encode(self, tokens: Sequence[str]) -> np.ndarray:
        """Turns the tokens of a caption into ids i32[length], every one in 1..len(self).

        Stop words become `<unk>`, as in the release.
        """
        return np.array([self._ids.get(token, self.unknown_id) for token in tokens], np.int32)

    def to_json(self) -> str:
        """Returns the words as a JSON object `{"words": [...]}`."""
        return json.dumps({"words": self.words}, ensure_ascii=False)
