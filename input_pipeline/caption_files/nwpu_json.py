"""Reads the JSON of NWPU-Captions, which lists the images of each class.

`{"airplane": [{"filename": ..., "split": ..., "raw": ..., "raw_1": ..., ..., "raw_4": ...}, ...]}`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from input_pipeline.caption_files.entry import Entry, EntryParser, kind
from input_pipeline.caption_files.text_file import read_json
from input_pipeline.errors import DataError

_RAW = re.compile("raw(?:_([0-9]{1,6}))?")


def read(path: Path, root: Path | None, blank_captions: bool = False) -> list[Entry]:
    """Reads the images in the order of such a file, see `caption_table.read`."""
    return entries_of(read_json(path, root), EntryParser(path, blank_captions))


def entries_of(content: Any, parser: EntryParser) -> list[Entry]:
    """Returns the images of the parsed content of such a file."""
    if not isinstance(content, dict):
        raise DataError(
            f"{parser.path} must be a JSON object with a list of images for each class."
        )
    entries: list[Entry] = []
    places: list[str] = []
    for name, images in content.items():
        folder = parser.name(name, "its keys")
        if not isinstance(images, list):
            raise parser.error(f"'{folder}'", f"it must be a list of images, not {kind(images)}")
        for index, image in enumerate(images):
            places.append(f"{folder}[{index}]")
            entries.append(_entry(image, folder, parser, places[-1]))
    return parser.check(entries, places)


def _entry(image: Any, folder: str, parser: EntryParser, place: str) -> Entry:
    fields = parser.fields(image, place)
    keys = sorted((int(m[1] or 0), m[0]) for key in fields if (m := _RAW.fullmatch(key)))
    captions = tuple(parser.caption(fields[key], f"{place}.{key}") for _, key in keys)
    name = parser.name(fields.get("filename"), place)
    return Entry(name, parser.split(fields.get("split"), place), captions, folder)
