"""Reads the JSON of Karpathy's caption data sets, which RSICD, RSITMD, UCM and Sydney use.

`{"images": [{"filename": ..., "split": ..., "sentences": [{"raw": ...}, ...]}, ...]}`; an optional
`filepath` is the folder of the file. A sentence may have a list `tokens` in place of `raw`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from input_pipeline.caption_files.entry import Entry, EntryParser
from input_pipeline.caption_files.text_file import read_json
from input_pipeline.errors import DataError


def read(path: Path, root: Path | None, blank_captions: bool = False) -> list[Entry]:
    """Reads the images in the order of such a file, see `caption_table.read`."""
    return entries_of(read_json(path, root), EntryParser(path, blank_captions))


def entries_of(content: Any, parser: EntryParser) -> list[Entry]:
    """Returns the images of the parsed content of such a file."""
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{parser.path} must be a JSON object with a list 'images'.")
    places = [f"images[{index}]" for index in range(len(images))]
    entries = [_entry(image, parser, place) for image, place in zip(images, places, strict=True)]
    return parser.check(entries, places)


def _entry(image: Any, parser: EntryParser, place: str) -> Entry:
    fields = parser.fields(image, place)
    sentences = fields.get("sentences")
    if not isinstance(sentences, list):
        raise parser.error(place, "it must have a list 'sentences'")
    captions = []
    for index, sentence in enumerate(sentences):
        where = f"{place}.sentences[{index}]"
        captions.append(parser.caption(_raw(sentence, parser, where), where))
    name, folder = parser.name(fields.get("filename"), place), fields.get("filepath")
    if folder not in (None, ""):
        name = f"{parser.name(folder, place)}/{name}"
    return Entry(name, parser.split(fields.get("split"), place), tuple(captions))


def _raw(sentence: Any, parser: EntryParser, where: str) -> Any:
    """Returns a sentence's text, put together from its tokens where it has nothing else."""
    fields = parser.fields(sentence, where)
    if "raw" in fields:
        return fields["raw"]
    tokens = fields.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise parser.error(where, "it needs a text 'raw' or a list of texts 'tokens'")
    return " ".join(tokens)
