"""Reads captions of your own: a table, lines of JSON, or JSON.

* `.csv` and `.tsv` have a header. A row names an image (`filename`, `file_name`, `image`,
  `filepath` or `path`) and has a caption (`caption`, `text`, `title` or `raw`) or several
  (`caption_1`, `caption_2`, ... or `caption1`, ...; empty ones are none), and perhaps a `split`.
  Several rows of one image are several captions of it. Other columns are not looked at.
* `.jsonl` has such an object a line; instead, `captions` may be a list.
* `.json` is a list of such objects, or what `karpathy_json` or `nwpu_json` read.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from input_pipeline.caption_files import karpathy_json, nwpu_json
from input_pipeline.caption_files.entry import (
    Entry,
    checked_caption,
    checked_entries,
    checked_name,
    checked_split,
    kind,
)
from input_pipeline.caption_files.text_file import parse_json, read_json, read_text
from input_pipeline.errors import DataError

NAME_KEYS = ("filename", "file_name", "image", "filepath", "path")
CAPTION_KEYS = ("caption", "text", "title", "raw")
_NUMBERED = re.compile("caption_?([0-9]{1,6})")

Row = tuple[str, dict[str, Any]]
"""Where a row stands, as 'line 3', and what is in it."""


def read(path: Path, root: Path, blank_captions: bool = False) -> list[Entry]:
    """Reads such a file.

    Args:
      path: of the file; its ending says what it is.
      root: the data folder, which nothing may lead out of.
      blank_captions: whether a caption may be empty.

    Returns:
      The images in the order in which they first occur.

    Raises:
      DataError: the file can't be read or is malformed; the sentence says where.
    """
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        delimiter = "," if ending == ".csv" else "\t"
        rows = _table_rows(read_text(path, root), delimiter, path)
        return _entries(rows, path, blank_captions)
    if ending == ".jsonl":
        return _entries(_json_lines(read_text(path, root), path), path, blank_captions)
    if ending != ".json":
        raise DataError(f"The caption file {path} must end in .csv, .tsv, .jsonl or .json.")
    content = read_json(path, root)
    if isinstance(content, list):
        rows = ((f"entry [{index}]", row) for index, row in enumerate(content))
        return _entries(rows, path, blank_captions)
    if not isinstance(content, dict):
        raise DataError(f"{path} must be a list or an object, not {kind(content)}.")
    format_of = karpathy_json if "images" in content else nwpu_json
    return format_of.entries_of(content, path, blank_captions)


def _table_rows(text: str, delimiter: str, path: Path) -> Iterator[Row]:
    numbered = _numbered_rows(text, delimiter, path)
    place, cells = next(numbered, ("line 1", [""]))  # there may be nothing but commas
    header = [name.strip().lower() for name in cells]
    if len(set(header)) != len(header):
        raise DataError(f"{path}, {place}: a column's name occurs twice.")
    if len(header) == 1 and re.search(r"[;,\t|]", cells[0]):
        separator = "commas" if delimiter == "," else "tabs"
        raise DataError(f"{path}, {place}: it has one cell; cells are parted by {separator}.")
    # Better here than in the first row.
    _key(dict.fromkeys(header), NAME_KEYS, path, place)
    _caption_keys(dict.fromkeys(header), path, place)
    for place, cells in numbered:
        if len(cells) != len(header):
            raise DataError(
                f"{path}, {place}: it has {len(cells)} cells, the header {len(header)}."
            )
        yield place, dict(zip(header, cells, strict=True))


def _numbered_rows(text: str, delimiter: str, path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields the line that each row begins in, and its cells; empty rows are passed over."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    place = "line 1"
    try:
        for cells in lines:
            if any(cell.strip() for cell in cells):
                yield place, cells
            place = f"line {lines.line_num + 1}"
    except csv.Error as error:
        raise DataError(f"{path}, {place}: it is no row of a table ({error}).") from None


def _json_lines(text: str, path: Path) -> Iterator[Row]:
    for number, line in enumerate(text.rstrip().split("\n"), start=1):
        if not line.strip():
            raise DataError(f"{path}, line {number}: it is empty.")
        yield f"line {number}", parse_json(line, f"{path}, line {number},")


def _entries(rows: Iterator[Row], path: Path, blank_captions: bool) -> list[Entry]:
    """Gathers the rows of each image."""
    captions: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    places: dict[str, str] = {}
    for place, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{path}, {place}: it must be an object, not {kind(row)}.")
        name = checked_name(row[_key(row, NAME_KEYS, path, place)], path, place)
        split = checked_split(row.get("split"), path, place)
        if splits.setdefault(name, split) != split:
            raise DataError(f"{path}, {place}: '{name}' has another split than in {places[name]}.")
        places.setdefault(name, place)
        texts = [checked_caption(t, blank_captions, path, place) for t in _texts(row, path, place)]
        captions.setdefault(name, []).extend(texts)
    entries = [Entry(name, splits[name], tuple(texts)) for name, texts in captions.items()]
    return checked_entries(entries, places.values(), path)


def _key(row: dict[str, Any], keys: tuple[str, ...], path: Path, place: str) -> str:
    """Returns the one of the keys that the row has."""
    found = [key for key in keys if key in row]
    if len(found) != 1:
        which = f"both '{found[0]}' and '{found[1]}'" if found else "none"
        raise DataError(f"{path}, {place}: it needs one of {', '.join(keys)} and has {which}.")
    return found[0]


def _caption_keys(row: dict[str, Any], path: Path, place: str) -> list[str]:
    """Returns the numbered keys in the order of their numbers, or the one other key."""
    numbered = sorted((int(m[1]), m[0]) for key in row if (m := _NUMBERED.fullmatch(key)))
    keys = [key for _, key in numbered]
    if not keys:
        return [_key(row, ("captions", *CAPTION_KEYS), path, place)]
    other = next((key for key in ("captions", *CAPTION_KEYS) if key in row), None)
    if other:
        raise DataError(f"{path}, {place}: it has both '{other}' and '{keys[0]}'.")
    return keys


def _texts(row: dict[str, Any], path: Path, place: str) -> list[Any]:
    """Returns the captions of a row, which are not checked yet."""
    keys = _caption_keys(row, path, place)
    if keys == ["captions"]:
        if not isinstance(row["captions"], list):
            raise DataError(
                f"{path}, {place}: 'captions' must be a list, not {kind(row['captions'])}."
            )
        return row["captions"]
    if keys[0] in CAPTION_KEYS:
        return [row[keys[0]]]
    return [row[key] for key in keys if not _is_empty(row[key])]


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())
