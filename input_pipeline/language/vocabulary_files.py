"""Where the vocabulary of a pretrained text encoder lies."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from input_pipeline.errors import DataError
from input_pipeline.language.clip_tokenizer import MERGES

CLIP_FILES = ("tokenizer.json", "vocab.json", "bpe_simple_vocab_16e6.txt.gz")
SIGLIP_FILES = ("tokenizer.json", "spiece.model", "sentencepiece.model")
NAMES = frozenset({*CLIP_FILES, *SIGLIP_FILES, MERGES})
"""All names that the files of a tokeniser may have."""

WRITTEN = "tokenizer"
"""The folder beside an exported model's weights that its tokeniser lies in."""


def find_clip_vocabulary(weights: Path | None = None, named: Path | None = None) -> Path:
    """Finds a file for `open_byte_pairs`: as named, else beside the weights or in open_clip_torch.

    Args:
      weights: The file of the weights, or the folder that they are in.
      named: The vocabulary's file, or the folder that it is in. If it is given, no other stands in
        for it.

    Raises:
      DataError: There is none.
    """
    file = _find(weights, named, CLIP_FILES) or _first(_open_clip(), CLIP_FILES)
    if file is None:
        raise DataError(
            f"There is no vocabulary of CLIP{_beside(weights)}: put the 'tokenizer.json' of any "
            "CLIP on Hugging Face there, or its 'vocab.json' and 'merges.txt', or install the "
            "library open_clip_torch, which has one (pip install --no-deps open_clip_torch)."
        )
    return file


def find_siglip_vocabulary(weights: Path | None = None, named: Path | None = None) -> Path:
    """Finds a file for `open_pieces`: as named, else beside the weights.

    Args:
      weights: The file of the weights, or the folder that they are in.
      named: The vocabulary's file, or the folder that it is in.

    Raises:
      DataError: There is none.
    """
    file = _find(weights, named, SIGLIP_FILES)
    if file is None:
        raise DataError(
            f"There is no vocabulary of SigLIP{_beside(weights)}: put the 'tokenizer.json' or the "
            "'spiece.model' there that Hugging Face has for the same SigLIP, or name its place."
        )
    return file


def _find(weights: Path | None, named: Path | None, names: Sequence[str]) -> Path | None:
    if named is not None:
        found = _first(named, names)
        if found is None:
            raise DataError(
                f"There is no vocabulary at '{named}': neither a file nor a folder of one."
            )
        return found
    folder = weights.parent if weights and not weights.is_dir() else weights
    beside = [folder, folder / WRITTEN] if folder else []
    return next((file for place in beside if (file := _first(place, names))), None)


def _first(place: Path | None, names: Sequence[str]) -> Path | None:
    """Returns a place that is a file, or the first file in it that is a vocabulary."""
    if place is None or place.is_file():
        return place
    files = (place / name for name in names)
    return next((file for file in files if file.is_file() and _is_whole(file)), None)


def _is_whole(file: Path) -> bool:
    return file.name != "vocab.json" or file.with_name(MERGES).is_file()


def _open_clip() -> Path | None:
    """Returns the folder of open_clip_torch without importing it, which would need PyTorch."""
    spec = find_spec("open_clip")
    folders = spec.submodule_search_locations if spec else None
    return Path(folders[0]) if folders else None


def _beside(weights: Path | None) -> str:
    return f" beside '{weights}'" if weights else " beside the weights"
