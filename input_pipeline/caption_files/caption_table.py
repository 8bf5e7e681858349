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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from input_pipeline.caption_files import karpathy_json, nwpu_json
from input_pipeline.caption_files.entry import Entry, EntryParser, kind
from input_pipeline.caption_files.text_file import parse_json, read_json, read_text
from input_pipeline.errors import DataError

NAME_KEYS = ("filename", "file_name", "image", "filepath", "path")
CAPTION_KEYS = ("caption", "text", "title", "raw")
_UNNUMBERED = ("captions", *CAPTION_KEYS)
_NUMBERED = re.compile("caption_?([0-9]{1,6})")

Row = tuple[str, dict[str, Any]]
"""Where a row stands, as 'line 3', and what is in it."""


def read(
    path: Path,
    root: Path | None,
    blank_captions: bool = False,
    image_folder: Path | None = None,
) -> list[Entry]:
    """Reads such a file.

    Args:
      path: The file; its ending says what it is.
      root: The data folder, which no link may lead out of; None if the file may lie anywhere.
      blank_captions: Whether a caption may be empty.
      image_folder: The folder of the images: absolute paths in it become relative to it.

    Returns:
      The images in the order in which they first occur.
    """
    parser = EntryParser(path, blank_captions, image_folder)
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        delimiter = "," if ending == ".csv" else "\t"
        return _entries(_table_rows(read_text(path, root), delimiter, parser), parser)
    if ending == ".jsonl":
        return _entries(_json_lines(read_text(path, root), parser), parser)
    if ending != ".json":
        raise DataError(f"{path} must end in .csv, .tsv, .jsonl or .json.")
    content = read_json(path, root)
    if isinstance(content, list):
        rows = ((f"entry [{index}]", row) for index, row in enumerate(content))
        return _entries(rows, parser)
    if not isinstance(content, dict):
        raise DataError(f"{path} must be a list or an object, not {kind(content)}.")
    format_of = karpathy_json if "images" in content else nwpu_json
    return format_of.entries_of(content, parser)


def _table_rows(text: str, delimiter: str, parser: EntryParser) -> Iterator[Row]:
    rows = _rows_with_text(text, delimiter, parser)
    place, cells = next(rows, ("line 1", [""]))  # there may be nothing but commas
    header = [name.strip().lower() for name in cells]
    if len(set(header)) != len(header):
        raise parser.error(place, "a column's name occurs twice")
    if len(header) == 1 and re.search(r"[;,\t|]", cells[0]):
        separator = "commas" if delimiter == "," else "tabs"
        raise parser.error(place, f"it has one cell; cells are parted by {separator}")
    # Better here than in the first row.
    _only_key(dict.fromkeys(header), NAME_KEYS, parser, place)
    _caption_keys(dict.fromkeys(header), parser, place)
    for place, cells in rows:
        if len(cells) != len(header):
            raise parser.error(place, f"it has {len(cells)} cells, the header {len(header)}")
        yield place, dict(zip(header, cells, strict=True))


def _rows_with_text(
    text: str, delimiter: str, parser: EntryParser
) -> Iterator[tuple[str, list[str]]]:
    """Yields the line that each row begins in, and its cells."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    place = "line 1"
    try:
        for cells in rows:
            if any(cell.strip() for cell in cells):
                yield place, cells
            place = f"line {rows.line_num + 1}"
    except csv.Error as error:
        raise parser.error(place, f"it is no row of a table ({error})") from None


def _json_lines(text: str, parser: EntryParser) -> Iterator[Row]:
    for number, line in enumerate(text.rstrip().split("\n"), start=1):
        place = f"line {number}"
        if not line.strip():
            raise parser.error(place, "it is empty")
        yield place, parse_json(line, f"{parser.path}, {place},")


def _entries(rows: Iterator[Row], parser: EntryParser) -> list[Entry]:
    captions: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    places: dict[str, str] = {}
    for place, row in rows:
        fields = parser.fields(row, place)
        name = parser.name(fields[_only_key(fields, NAME_KEYS, parser, place)], place)
        split = parser.split(fields.get("split"), place)
        first = places.setdefault(name, place)
        if splits.setdefault(name, split) != split:
            raise parser.error(place, f"'{name}' has another split than in {first}")
        texts = [parser.caption(text, place) for text in _texts(fields, parser, place)]
        captions.setdefault(name, []).extend(texts)
    entries = [Entry(name, splits[name], tuple(texts)) for name, texts in captions.items()]
    return parser.check(entries, places.values())


def _only_key(fields: dict[str, Any], keys: Sequence[str], parser: EntryParser, place: str) -> str:
    found = [key for key in keys if key in fields]
    if len(found) != 1:
        which = f"both '{found[0]}' and '{found[1]}'" if found else "none"
        raise parser.error(place, f"it needs one of {', '.join(keys)} and has {which}")
    return found[0]


def _caption_keys(fields: dict[str, Any], parser: EntryParser, place: str) -> list[str]:
    """Returns the numbered keys in the order of their numbers, or the one other key."""
    numbered = sorted((int(m[1]), m[0]) for key in fields if (m := _NUMBERED.fullmatch(key)))
    if not numbered:
        return [_only_key(fields, _UNNUMBERED, parser, place)]
    other = next((key for key in _UNNUMBERED if key in fields), None)
    if other:
        raise parser.error(place, f"it has both '{other}' and '{numbered[0][1]}'")
    return [key for _, key in numbered]


def _texts(fields: dict[str, Any], parser: EntryParser, place: str) -> list[Any]:
    """Returns the captions of a row, which are not checked yet."""
    keys = _caption_keys(fields, parser, place)
    if keys == ["captions"]:
        texts = fields["captions"]
        if not isinstance(texts, list):
            raise parser.error(place, f"'captions' must be a list, not {kind(texts)}")
        return texts
    if keys[0] in CAPTION_KEYS:
        return [fields[keys[0]]]
    return [fields[key] for key in keys if fields[key] is not None and str(fields[key]).strip()]
