"""Reads the JSON of Karpathy's caption data sets, which RSICD, RSITMD, UCM and Sydney use.

`{"images": [{"filename": ..., "split": ..., "sentences": [{"raw": ...}, ...]}, ...]}`; an optional
`filepath` is the folder of the file. A sentence may have a list `tokens` in place of `raw`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from input_pipeline.caption_files.entry import (
    Entry,
    checked_caption,
    checked_entries,
    checked_name,
    checked_split,
    kind,
)
from input_pipeline.caption_files.text_file import read_json
from input_pipeline.errors import DataError


def read(path: Path, root: Path, blank_captions: bool = False) -> list[Entry]:
    """Reads such a file.

    Args:
      path: of the file.
      root: the data folder, which nothing may lead out of.
      blank_captions: whether a caption may be empty.

    Returns:
      The images in the order of the file.

    Raises:
      DataError: the file can't be read or is malformed; the sentence says where.
    """
    return entries_of(read_json(path, root), path, blank_captions)


def entries_of(content: Any, path: Path, blank_captions: bool) -> list[Entry]:
    """Like `read`, for the parsed content of the file."""
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{path} must be a JSON object with a list 'images'.")
    places = [f"images[{index}]" for index in range(len(images))]
    entries = [
        _entry(image, path, place, blank_captions)
        for image, place in zip(images, places, strict=True)
    ]
    return checked_entries(entries, places, path)


def _entry(image: Any, path: Path, place: str, blank_captions: bool) -> Entry:
    if not isinstance(image, dict):
        raise DataError(f"{path}, {place}: it must be an object.")
    sentences = image.get("sentences")
    if not isinstance(sentences, list):
        raise DataError(f"{path}, {place}: it must have a list 'sentences'.")
    captions: list[str] = []
    for index, sentence in enumerate(sentences):
        where = f"{place}.sentences[{index}]"
        text = _raw(sentence, path, where)
        captions.append(checked_caption(text, blank_captions, path, where))
    split = checked_split(image.get("split"), path, place)
    return Entry(_file_name(image, path, place), split, tuple(captions))


def _file_name(image: dict[str, Any], path: Path, place: str) -> str:
    name, folder = checked_name(image.get("filename"), path, place), image.get("filepath")
    if folder is None or folder == "":
        return name
    # Each by itself, lest '/a.jpg' become harmless, and together, for the length.
    return checked_name(f"{checked_name(folder, path, place)}/{name}", path, place)


def _raw(sentence: Any, path: Path, where: str) -> Any:
    """Returns a sentence's text, put together from its tokens where it has nothing else."""
    if not isinstance(sentence, dict):
        raise DataError(f"{path}, {where}: it must be an object, not {kind(sentence)}.")
    if "raw" in sentence:
        return sentence["raw"]
    tokens = sentence.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise DataError(f"{path}, {where}: it needs a text 'raw' or a list of texts 'tokens'.")
    return " ".join(tokens)
