"""Reads text and JSON files of a data folder, and nothing outside of it."""

from __future__ import annotations

import json
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from input_pipeline.errors import DataError

MAX_BYTES = 2**30
"""Larger files are not read."""


def read_text(path: Path, root: Path) -> str:
    """Reads a UTF-8 file; a byte order mark is dropped, and every line ends with a line feed.

    Args:
      path: of the file.
      root: the data folder; links out of it are not followed.

    Returns:
      The text, not empty.

    Raises:
      DataError: it can't be read, or is not such a file.
    """
    return _text(_read_bytes(path, root), path)


def read_json(path: Path, root: Path) -> Any:
    """Reads a JSON file, see `read_text`.

    Raises:
      DataError: it can't be read, or is not JSON.
    """
    return parse_json(read_text(path, root), str(path))


def parse_json(text: str, where: str) -> Any:
    """Reads a JSON text.

    Args:
      text: to read.
      where: it comes from, for the error's sentence.

    Raises:
      DataError: it is not JSON, repeats a key within an object, or is nested too deeply.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise DataError(f"{where} has the key {twice[:60]!a} twice in one object.")
        return fields

    def refused(constant: str) -> None:
        raise DataError(f"{where} is not JSON: it has the number {constant}.")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refused)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text else ""
        message = error.msg.removesuffix(" at")
        raise DataError(f"{where} is not JSON: {message} at {line}column {error.colno}.") from None
    except RecursionError:
        raise DataError(f"{where} is nested too deeply.") from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where} has a number of too many digits.") from None


def _read_bytes(path: Path, root: Path) -> bytes:
    try:
        status = path.stat()
        inside = path.resolve().is_relative_to(root.resolve())
    # Python 3.12 and before take a circle of links for a RuntimeError, a NUL for a ValueError.
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"The file {path} can't be read: {_reason(error)}.") from None
    if not inside:
        raise DataError(
            f"The file {path} lies outside of {root}: nothing outside of the data folder is read."
        )
    # A pipe or a device would block, or never end.
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} can't be read: it is not a file.")
    if status.st_size > MAX_BYTES:
        raise DataError(f"The file {path} is larger than {MAX_BYTES} bytes.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"The file {path} can't be read: {_reason(error)}.") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "it has no proper name"


def _text(content: bytes, path: Path) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"The file {path} is UTF-16 text: save it as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        line = before.count(b"\n") + 1
        raise DataError(f"The file {path} is not UTF-8 text: see line {line}.") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"The file {path} has a NUL byte in line {line}: save it as UTF-8 text.")
    if not text.strip():
        raise DataError(f"The file {path} is empty.")
    return text
