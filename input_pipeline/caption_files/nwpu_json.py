"""Reads the JSON of NWPU-Captions, which lists the images of each class.

`{"airplane": [{"filename": ..., "split": ..., "raw": ..., "raw_1": ..., ..., "raw_4": ...}, ...]}`.
"""

from __future__ import annotations

import re
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

_RAW = re.compile("raw(?:_([0-9]{1,6}))?")


def read(path: Path, root: Path, blank_captions: bool = False) -> list[Entry]:
    """Reads such a file.

    Args:
      path: of the file.
      root: the data folder, which nothing may lead out of.
      blank_captions: whether a caption may be empty.

    Returns:
      The images in the order of the file; `folder` is the class.

    Raises:
      DataError: the file can't be read or is malformed; the sentence says where.
    """
    return entries_of(read_json(path, root), path, blank_captions)


def entries_of(content: Any, path: Path, blank_captions: bool) -> list[Entry]:
    """Like `read`, for the parsed content of the file."""
    if not isinstance(content, dict):
        raise DataError(f"{path} must be a JSON object with a list of images for each class.")
    entries: list[Entry] = []
    places: list[str] = []
    for name, images in content.items():
        folder = checked_name(name, path, "its keys")
        if "/" in folder:
            raise DataError(f"{path}: the class {name!r} is not the name of one folder.")
        if not isinstance(images, list):
            raise DataError(f"{path}, '{folder}': it must be a list of images, not {kind(images)}.")
        for index, image in enumerate(images):
            places.append(f"{folder}[{index}]")
            entries.append(_entry(image, folder, path, places[-1], blank_captions))
    return checked_entries(entries, places, path)


def _entry(image: Any, folder: str, path: Path, place: str, blank_captions: bool) -> Entry:
    if not isinstance(image, dict):
        raise DataError(f"{path}, {place}: it must be an object.")
    matches = sorted((int(m[1] or 0), m[0]) for key in image if (m := _RAW.fullmatch(key)))
    captions = [
        checked_caption(image[key], blank_captions, path, f"{place}.{key}") for _, key in matches
    ]
    return Entry(
        checked_name(image.get("filename"), path, place),
        checked_split(image.get("split"), path, place),
        tuple(captions),
        folder,
    )
