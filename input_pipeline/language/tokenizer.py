"""What a text encoder needs of a tokeniser: rows of token ids, and a name for the way of reading.

`WordTokenizer`, `ClipTokenizer` and `SiglipTokenizer` are tokenisers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np


class Tokenizer(Protocol):
    """Turns captions into the token ids that one text encoder was trained on."""

    @property
    def identity(self) -> str:
        """A short name, which differs if any caption could get other tokens.

        What has been prepared with a tokeniser can be kept under its identity.
        """

    def encode(self, captions: Sequence[str], multiple: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tokens i32[M, T] of M captions and their lengths i32[M], in tokens.

        A caption that is too long is cut. What lies behind a caption's length is padding. T is the
        largest length, rounded up to a multiple of `multiple`, but never more than the encoder
        takes; an encoder that looks at the padding always gets all that it takes.
        """

    def is_cut(self, caption: str) -> bool:
        """Returns whether a caption is so long that its end is not read."""

    def write(self, folder: Path) -> None:
        """Writes the files to a folder that a model needs to have this tokeniser elsewhere."""


def rounded_up(length: int, multiple: int) -> int:
    """Returns the smallest multiple of `multiple` that is at least a length."""
    return -(-length // multiple) * multiple


def padded(
    ids: Sequence[Sequence[int] | np.ndarray], width: int, padding_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lays out the token ids of M captions, none longer than `width`, as `Tokenizer.encode` does.

    Returns:
      i32[M, width], padded at the end, and the lengths i32[M].
    """
    tokens = np.full((len(ids), width), padding_id, np.int32)
    for row, caption_ids in zip(tokens, ids, strict=True):
        row[: len(caption_ids)] = caption_ids
    return tokens, np.array([len(caption_ids) for caption_ids in ids], np.int32)


def digest(content: object) -> str:
    """Returns 16 hexadecimal digits for anything that JSON can say; mappings have no order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
