"""Base forms of English words (`planes` -> `plane`), through the optional library simplemma."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from input_pipeline.errors import DataError

__all__ = ["english_lemma", "unchanged"]


def unchanged(word: str) -> str:
    """Returns the word: no lemmatisation."""
    return word


def english_lemma() -> Callable[[str], str]:
    """Returns a function from a lower-case word to its base form; it remembers what it has seen.

    Library: simplemma, a dictionary and rules for endings; nothing is downloaded.

    Raises:
      DataError: the library is not installed.
    """
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
