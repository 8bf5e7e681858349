"""One image as a caption file lists it, and what must hold whatever the format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from input_pipeline.errors import DataError

SPLIT_NAMES = {
    "train": "train",
    "restval": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}
"""What files call the splits."""

MAX_NAME = 1024
"""Characters of a file name, at most."""

_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
# Controls, and what some programs take for the end of a line.
_NO_NAME = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_WHITE_SPACE = re.compile(r"\s")
_DRIVE = re.compile("[A-Za-z]:")


@dataclass(frozen=True)
class Entry:
    """One image as a caption file lists it.

    Attributes:
      file_name: relative to the image folder, with forward slashes.
      split: 'train', 'validation', 'test', or '' where the file does not say.
      captions: one or more.
      folder: of the image's class, which the file may lie in; '' for none.
    """

    file_name: str
    split: str
    captions: tuple[str, ...]
    folder: str = ""


def checked_name(name: object, path: Path, where: str) -> str:
    """Returns a file name in its plain form.

    Back slashes become slashes, and `./a.jpg` and `b//a.jpg` become `a.jpg` and `b/a.jpg`, so that
    a name that occurs twice is seen.

    Args:
      name: from the file.
      path: of the caption file.
      where: in the file, as 'line 3' or 'images[2]'.

    Raises:
      DataError: it is no name of a file inside of a folder.
    """
    if name is not None and not isinstance(name, str):
        raise DataError(f"{path}, {where}: a file name must be text, not {kind(name)}.")
    plain = (name or "").strip().replace("\\", "/")
    if len(plain) > MAX_NAME:
        raise DataError(f"{path}, {where}: the file name is longer than {MAX_NAME} characters.")
    if not plain.isprintable() and _NO_NAME.search(plain):
        raise DataError(
            f"{path}, {where}: the file name {plain!a} has a character that is no text."
        )
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    inner = "/".join(parts)  # of './C:/a.jpg' the drive is left
    if plain.startswith("/") or _DRIVE.match(inner) or ".." in parts:
        raise DataError(f"{path}, {where}: {plain!r} lies outside of the image folder.")
    if not inner:
        raise DataError(f"{path}, {where}: there is no file name.")
    return inner


def checked_caption(text: object, blank_captions: bool, path: Path, where: str) -> str:
    """Returns a caption as one line: white space within it becomes spaces.

    Args:
      text: from the file.
      blank_captions: whether it may be empty.
      path: of the caption file.
      where: in the file.

    Raises:
      DataError: it is no text, or empty.
    """
    if not isinstance(text, str):
        raise DataError(f"{path}, {where}: a caption must be text, not {kind(text)}.")
    plain = text.strip()
    if not plain.isprintable():  # few are not, and this is fast
        # Only what was escaped in JSON can be half a character, or NUL.
        if _NO_TEXT.search(plain):
            raise DataError(f"{path}, {where}: a caption has a character that is no text.")
        # One for one: the concepts of the KAMCL release depend on how many spaces there are.
        plain = _WHITE_SPACE.sub(" ", plain)
    if not plain and not blank_captions:
        raise DataError(f"{path}, {where}: a caption is empty.")
    return plain


def checked_split(name: object, path: Path, where: str) -> str:
    """Returns a split under our name for it; '' where the file does not say.

    Args:
      name: from the file, in capitals or not; None or white space says nothing.
      path: of the caption file.
      where: in the file.

    Raises:
      DataError: it is no name of a split.
    """
    if name is not None and not isinstance(name, str):
        raise DataError(f"{path}, {where}: the split must be text, not {kind(name)}.")
    plain = (name or "").strip()
    split = SPLIT_NAMES.get(plain.lower()) if plain else ""
    if split is None:
        raise DataError(
            f"{path}, {where}: the split {plain[:40]!a} is not one of {', '.join(SPLIT_NAMES)}."
        )
    return split


def checked_entries(entries: Sequence[Entry], places: Iterable[str], path: Path) -> list[Entry]:
    """Checks what holds for all entries of a file together.

    Args:
      entries: one an image.
      places: of each in the file, as 'line 3'.
      path: of the caption file.

    Returns:
      The entries.

    Raises:
      DataError: there is none, one has no caption, a name occurs twice, or some have a split and
        some do not.
    """
    if not entries:
        raise DataError(f"{path} lists no image.")
    first: dict[str, str] = {}
    for entry, place in zip(entries, places, strict=True):
        if not entry.captions:
            raise DataError(f"{path}, {place}: '{entry.file_name}' has no caption.")
        if entry.file_name in first:
            raise DataError(
                f"{path}, {place}: the file name '{entry.file_name}' is listed for two images, "
                f"first in {first[entry.file_name]}."
            )
        first[entry.file_name] = place
        if bool(entry.split) != bool(entries[0].split):
            raise DataError(
                f"{path}, {place}: some images have a split and others, like "
                f"'{(entry if not entry.split else entries[0]).file_name}', have none."
            )
    return list(entries)


def kind(value: object) -> str:
    """Returns what JSON calls a value's type, with an article, for the error's sentence."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    names: dict[type, str] = {str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")
