"""Reads text and JSON files of a data folder, and nothing outside of it."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from input_pipeline.errors import DataError


def read_text(
    path: Path, root: Path | None, remedy: str = "write --config.data.options.captions={target}"
) -> str:
    """Reads a UTF-8 file; a byte order mark is dropped, and every line ends with a line feed.

    Args:
      path: The file.
      root: The data folder, which no link may lead out of; None if the file may lie anywhere,
        because the user has named it by its absolute path.
      remedy: What a user can do who means the file that such a link leads to.

    Returns:
      The text, which is not empty.
    """
    target = Path(os.path.realpath(path))
    if root is not None and not target.is_relative_to(os.path.realpath(root)):
        raise DataError(
            f"The file {path} leads to {target}, outside of {root}. If you mean that file, "
            f"{remedy.format(target=target)}."
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"The file {path} can't be read: {error.strerror}.") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"The file {path} is UTF-16 text: save it as UTF-8.")
    content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"The file {path} is not UTF-8 text: see line {line}.") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"The file {path} has a NUL byte in line {line}: save it as UTF-8 text.")
    if not text.strip():
        raise DataError(f"The file {path} is empty.")
    return text


def read_json(path: Path, root: Path | None) -> Any:
    """Reads a JSON file; the arguments are those of `read_text`."""
    return parse_json(read_text(path, root), str(path))


def parse_json(text: str, where: str) -> Any:
    """Reads a JSON text that repeats no key within an object; errors say `where` it comes from."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise DataError(f"{where} has the key {twice[:60]!a} twice in one object.")
        return fields

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text else ""
        message = error.msg.removesuffix(" at")
        raise DataError(f"{where} is not JSON: {message} at {line}column {error.colno}.") from None
