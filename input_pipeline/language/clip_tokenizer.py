"""CLIP's tokeniser: lower-case words, split into pieces by byte-pair encoding.

Library mirrored: the tokeniser of OpenAI's CLIP (MIT) as open_clip 3 has it. RemoteCLIP, GeoRSCLIP
and the models of open_clip that are called ViT-... or RN... read captions with it.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import regex
from tokenizers import models, pre_tokenizers

from input_pipeline.errors import DataError
from input_pipeline.language.cleaning import clip_text
from input_pipeline.language.tokenizer import digest, padded, rounded_up

CONTEXT_LENGTH = 77
PADDING_ID = 0
START, END = "<start_of_text>", "<end_of_text>"

# Hugging Face's files spell the two tokens in another way. CLIP's own file does not list them.
_START_IN_JSON, _END_IN_JSON = "<|startoftext|>", "<|endoftext|>"

MERGES = "merges.txt"
"""The file of pairs beside a `vocab.json`."""

_VERSION = "#version: 0.2"  # what its first line says everywhere
_WORD_END = "</w>"
_NUM_MERGES = 49152 - 256 - 2  # CLIP's own file lists more than CLIP uses

# Ignoring the case matters although captions are in lower case: a long s is an s here, too.
_WORD = regex.compile(
    rf"{START} | {END} | '(?:s|t|re|ve|m|ll|d) | \p{{L}}+ | \p{{N}} | [^\s\p{{L}}\p{{N}}]+",
    regex.IGNORECASE | regex.VERBOSE,
)
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


@dataclass(frozen=True)
class BytePairs:
    """CLIP's vocabulary.

    Attributes:
      ids: Piece -> id, without the start and the end token.
      merges: The pairs of pieces that become one, the first to be merged first.
      start_id: Stands before each caption.
      end_id: Stands behind each caption.
    """

    ids: Mapping[str, int]
    merges: Sequence[tuple[str, str]]
    start_id: int
    end_id: int


def open_byte_pairs(file: Path) -> BytePairs:
    """Reads CLIP's vocabulary from any of the files that it comes in.

    Args:
      file: `tokenizer.json`, `vocab.json` with `merges.txt` beside it, or CLIP's own
        `bpe_simple_vocab_16e6.txt.gz`.

    Raises:
      DataError: The file is not there, is damaged or is another model's.
    """
    try:
        if file.suffix == ".gz":
            return _from_own_file(gzip.decompress(file.read_bytes()).decode())
        content = json.loads(file.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        if isinstance(content.get("model"), Mapping):  # CLIP knows a piece "model", too
            return _from_tokenizer_json(content["model"])
        merges = (file.parent / MERGES).read_text("utf-8")
        return _from_json(content, _pairs(merges.splitlines()))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"CLIP's vocabulary cannot be read from '{file}': {type(error).__name__}: {error}."
        ) from error


def _from_own_file(text: str) -> BytePairs:
    merges = _pairs(text.splitlines()[: _NUM_MERGES + 1])
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + _WORD_END for letter in letters), *map("".join, merges)]
    ids = {piece: index for index, piece in enumerate(pieces)}
    return BytePairs(ids, merges, len(pieces), len(pieces) + 1)


def _from_tokenizer_json(model: Mapping) -> BytePairs:
    if model["type"] != "BPE" or model["end_of_word_suffix"] != _WORD_END:
        raise ValueError("it is the tokeniser of another model")
    # Files of older versions join the two pieces with a space.
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    return _from_json(model["vocab"], [(left, right) for left, right in merges])


def _from_json(ids: Mapping[str, int], merges: list[tuple[str, str]]) -> BytePairs:
    special = (_START_IN_JSON, _END_IN_JSON)
    pieces = {piece: index for piece, index in ids.items() if piece not in special}
    return BytePairs(pieces, merges, *(ids[name] for name in special))


def _pairs(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Reads the pairs below a first line that tells the version."""
    return [(left, right) for left, right in (line.split(" ") for line in lines[1:])]


@dataclass(frozen=True)
class ClipTokenizer:
    """Reads captions as CLIP does, as a `Tokenizer`.

    Attributes:
      byte_pairs: From `open_byte_pairs`.
      context_length: The tokens of a row, start and end among them.
    """

    byte_pairs: BytePairs
    context_length: int = CONTEXT_LENGTH

    @cached_property
    def identity(self) -> str:
        """The kind, the length, and a digest of the vocabulary, whichever file it is from."""
        known = self.byte_pairs
        content = [dict(known.ids), list(known.merges), known.start_id, known.end_id]
        return f"clip-{self.context_length}-{digest(content)}"

    def encode(self, captions: Sequence[str], multiple: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Returns tokens i32[M, T] and lengths i32[M], with the start and the end.

        A caption that is too long loses its last tokens, so that the end token is in the last
        place. The padding is 0. An empty caption is a start and an end. T is as `Tokenizer.encode`
        has it: no token sees those behind it, so that less padding embeds a caption alike.
        """
        start, end, room = self.byte_pairs.start_id, self.byte_pairs.end_id, self._room
        ids = [[start, *self._ids(caption)[:room], end] for caption in captions]
        width = rounded_up(max(map(len, ids), default=0), multiple)
        return padded(ids, min(width, self.context_length), PADDING_ID)

    def is_cut(self, caption: str) -> bool:
        """Returns whether a caption has more tokens than fit between the start and the end."""
        return len(self._ids(caption)) > self._room

    def write(self, folder: Path) -> None:
        """Writes the vocabulary as `vocab.json` and `merges.txt`, which any CLIP can be read with.

        The folder is made if it is absent.
        """
        known = self.byte_pairs
        special = {_START_IN_JSON: known.start_id, _END_IN_JSON: known.end_id}
        merges = [_VERSION, *(f"{left} {right}" for left, right in known.merges), ""]
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary = json.dumps({**known.ids, **special}, ensure_ascii=False)
        (folder / "vocab.json").write_text(vocabulary, "utf-8")
        (folder / MERGES).write_text("\n".join(merges), "utf-8")

    @property
    def _room(self) -> int:
        return self.context_length - 2

    @cached_property
    def _merging(self) -> models.BPE:
        known = self.byte_pairs
        return models.BPE(dict(known.ids), list(known.merges), end_of_word_suffix=_WORD_END)

    def _ids(self, caption: str) -> list[int]:
        # Whoever writes the name of the start or the end token gets that token, as in CLIP.
        special = {START: self.byte_pairs.start_id, END: self.byte_pairs.end_id}
        ids: list[int] = []
        for word in _WORD.findall(clip_text(caption)):
            if word in special:
                ids.append(special[word])
            else:
                [(letters, _)] = _BYTES.pre_tokenize_str(word)
                ids.extend(token.id for token in self._merging.tokenize(letters))
        return ids
