"""SigLIP's tokeniser: pieces of words that sentencepiece's unigram model chooses.

Libraries mirrored: big_vision (Apache-2.0), open_clip 3 (MIT) and transformers 5 (Apache-2.0). They
agree on what follows the pieces: one end token, and padding with that same token. They don't agree
on how a caption is cleaned: see `SiglipTokenizer.clean`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import Unigram

from input_pipeline.errors import DataError
from input_pipeline.language.cleaning import siglip_text, siglip_training_text
from input_pipeline.language.tokenizer import padded

CONTEXT_LENGTH = 64
END = "</s>"

CLEANING = {"canonicalize": siglip_text, "lower": siglip_training_text}
"""What captions can be cleaned with, by the names of open_clip and big_vision."""


@dataclass(frozen=True)
class Pieces:
    """SigLIP's vocabulary.

    Attributes:
      ids_of: Text -> the ids of its pieces.
      end_id: Stands behind each caption, and pads it.
      size: How many pieces there are.
      suffix: That of the file, '.json' or '.model'.
      content: What is in the file.
    """

    ids_of: Callable[[str], list[int]]
    end_id: int
    size: int
    suffix: str
    content: bytes

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits, those of the file."""
        return hashlib.sha256(self.content).hexdigest()[:16]


def open_pieces(file: Path) -> Pieces:
    """Reads SigLIP's vocabulary from either of the files that it comes in.

    Args:
      file: `tokenizer.json`, or a `.model` file, which needs the library sentencepiece.

    Raises:
      DataError: The file is not there, is damaged or is another model's, or the library is missing.
    """
    read = _from_model if file.suffix == ".model" else _from_tokenizer_json
    try:
        content = file.read_bytes()
        ids_of, end_id, size = read(content)
    except ImportError:
        raise DataError(
            f"The vocabulary '{file}' needs the library sentencepiece (pip install sentencepiece), "
            "which a 'tokenizer.json' in its place does not."
        ) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"SigLIP's vocabulary cannot be read from '{file}': {type(error).__name__}: {error}."
        ) from error
    return Pieces(ids_of, end_id, size, file.suffix, content)


def _from_tokenizer_json(content: bytes) -> tuple[Callable[[str], list[int]], int, int]:
    pipeline = Pipeline.from_buffer(content)
    end_id = pipeline.token_to_id(END)
    if not isinstance(pipeline.model, Unigram) or end_id is None:
        raise ValueError("it is the tokeniser of another model")
    pipeline.no_truncation()
    pipeline.no_padding()

    def ids_of(text: str) -> list[int]:
        return pipeline.encode(text, add_special_tokens=False).ids

    return ids_of, end_id, pipeline.get_vocab_size()


def _from_model(content: bytes) -> tuple[Callable[[str], list[int]], int, int]:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=content)
    end_id = processor.eos_id()
    if end_id < 0 or processor.id_to_piece(end_id) != END:
        raise ValueError("it is the tokeniser of another model")
    return processor.encode, end_id, processor.get_piece_size()


@dataclass(frozen=True)
class SiglipTokenizer:
    """Reads captions as SigLIP does, as a `Tokenizer`.

    Attributes:
      pieces: From `open_pieces`.
      context_length: The tokens of a row, the end among them.
      clean: How a caption is cleaned, a name in `CLEANING`. 'canonicalize' is open_clip's way, and
        that of transformers but for underscores and for what needs mending. 'lower' is how
        big_vision trained: punctuation stays.
    """

    pieces: Pieces
    context_length: int = CONTEXT_LENGTH
    clean: str = "canonicalize"

    @property
    def identity(self) -> str:
        """The kind, the way of cleaning, the length, and a digest of the vocabulary's file."""
        return f"siglip-{self.clean}-{self.context_length}-{self.pieces.digest}"

    def encode(self, captions: Sequence[str], multiple: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Returns tokens i32[M, context_length] and lengths i32[M], with the end.

        A caption that is too long loses its last tokens, so that an end token is in the last place,
        which is the one that SigLIP reads. An empty caption is nothing but ends. SigLIP sees all
        places of a row, so that there are always `context_length` of them.
        """
        del multiple
        end, room = self.pieces.end_id, self.context_length - 1
        ids = [[*self._ids(caption)[:room], end] for caption in captions]
        return padded(ids, self.context_length, end)

    def is_cut(self, caption: str) -> bool:
        """Returns whether a caption has more tokens than fit before the end."""
        return len(self._ids(caption)) >= self.context_length

    def write(self, folder: Path) -> None:
        """Writes the vocabulary's file; the folder is made if it is absent."""
        folder.mkdir(parents=True, exist_ok=True)
        name = "spiece.model" if self.pieces.suffix == ".model" else "tokenizer.json"
        (folder / name).write_bytes(self.pieces.content)

    def _ids(self, caption: str) -> list[int]:
        return self.pieces.ids_of(CLEANING[self.clean](caption))
