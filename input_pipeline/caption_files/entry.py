"""One image as a caption file lists it, and the checks that hold whatever the file's format."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from input_pipeline.errors import DataError

SPLIT_NAMES = {
    **dict.fromkeys(("train", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    "test": "test",
}
"""What files call the splits."""

_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
# Control characters, and what some programs take for the end of a line.
_NO_NAME = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_WHITE_SPACE = re.compile(r"\s")
_DRIVE = re.compile("[A-Za-z]:")


@dataclass(frozen=True)
class Entry:
    """One image as a caption file lists it.

    Attributes:
      file_name: The file's name relative to the image folder, with forward slashes.
      split: 'train', 'validation', 'test', or '' where the file does not say.
      captions: One or more captions.
      folder: The folder of the image's class, which the file may lie in; '' for none.
    """

    file_name: str
    split: str
    captions: tuple[str, ...]
    folder: str = ""


@dataclass
class EntryParser:
    """Reads the values of one caption file, and raises a `DataError` for those that can't be.

    The methods take a value and its place in the file, as 'line 3' or 'images[2]', which the
    error's sentence names.

    Attributes:
      path: The caption file.
      blank_captions: Whether a caption may be empty.
      image_folder: The folder in which a name may be an absolute path; None for nowhere.
      blank_at: The places of the empty captions that have been met.
    """

    path: Path
    blank_captions: bool = False
    image_folder: Path | None = None
    blank_at: list[str] = field(default_factory=list)

    def error(self, place: str, fault: str) -> DataError:
        """Returns the error that says what is wrong at a place of the file."""
        return DataError(f"{self.path}, {place}: {fault}.")

    def name(self, value: object, place: str) -> str:
        """Returns a file name relative to the image folder, in its plain form.

        Back slashes become slashes, and `./a.jpg` and `b//a.jpg` become `a.jpg` and `b/a.jpg`, so
        that a name that occurs twice is seen.
        """
        plain = self._stripped(value, "a file name", place).replace("\\", "/")
        if _NO_NAME.search(plain):
            raise self.error(place, f"the file name {plain!a} has a character that is no text")
        parts = [part for part in plain.split("/") if part not in ("", ".")]
        inner = "/".join(parts)  # of './C:/a.jpg' the drive is left
        if plain.startswith("/") and ".." not in parts:
            inner = self._below_image_folder(f"/{inner}", place)
        elif _DRIVE.match(inner) or ".." in parts:
            raise self.error(place, f"{plain!r} lies outside of the image folder")
        if not inner:
            raise self.error(place, "there is no file name")
        return inner

    def _below_image_folder(self, absolute: str, place: str) -> str:
        if self.image_folder is None:
            raise self.error(place, f"{absolute!r} lies outside of the image folder")
        folders = [os.path.abspath(self.image_folder), os.path.realpath(self.image_folder)]
        for folder in folders:
            if absolute.startswith(f"{folder}/"):
                return absolute.removeprefix(f"{folder}/")
        raise self.error(
            place,
            f"{absolute!r} lies outside of the image folder {folders[0]} "
            "(--config.data.options.images=FOLDER names another one)",
        )

    def caption(self, value: object, place: str) -> str:
        """Returns a caption as one line: white space within it becomes spaces."""
        if value is None:
            raise self.error(place, "a caption must be text, not null")
        plain = self._stripped(value, "a caption", place)
        if not plain.isprintable():  # few are not, and this is fast
            # Only what was escaped in JSON can be half a character, or NUL.
            if _NO_TEXT.search(plain):
                raise self.error(place, "a caption has a character that is no text")
            # One for one: the concepts of the KAMCL release depend on how many spaces there are.
            plain = _WHITE_SPACE.sub(" ", plain)
        if not plain:
            self.blank_at.append(place)
        return plain

    def split(self, value: object, place: str) -> str:
        """Returns a split under our name for it; '' for None or white space."""
        plain = self._stripped(value, "the split", place)
        split = SPLIT_NAMES.get(plain.lower()) if plain else ""
        if split is None:
            known = ", ".join(SPLIT_NAMES)
            raise self.error(place, f"the split {plain[:40]!a} is not one of {known}")
        return split

    def fields(self, value: object, place: str) -> dict[str, Any]:
        """Returns a value that must be a JSON object."""
        if not isinstance(value, dict):
            raise self.error(place, f"it must be an object, not {kind(value)}")
        return value

    def _stripped(self, value: object, what: str, place: str) -> str:
        if value is not None and not isinstance(value, str):
            raise self.error(place, f"{what} must be text, not {kind(value)}")
        return (value or "").strip()

    def check_blank(self) -> None:
        """Raises an error that says where captions are empty, unless they may be."""
        if self.blank_captions or not self.blank_at:
            return
        if len(self.blank_at) == 1:
            raise self.error(self.blank_at[0], "a caption is empty")
        more = len(self.blank_at[10:])
        places = ", ".join(self.blank_at[:10]) + (f" and {more} more" if more else "")
        raise DataError(f"{self.path}: {len(self.blank_at)} captions are empty: {places}.")

    def check(self, entries: Sequence[Entry], places: Iterable[str]) -> list[Entry]:
        """Returns the entries, each with its place, if together they are as they must be."""
        self.check_blank()
        if not entries:
            raise DataError(f"{self.path} lists no image.")
        first: dict[str, str] = {}
        for entry, place in zip(entries, places, strict=True):
            name = entry.file_name
            if not entry.captions:
                raise self.error(place, f"'{name}' has no caption")
            if name in first:
                fault = f"the file name '{name}' is listed for two images, first in {first[name]}"
                raise self.error(place, fault)
            first[name] = place
            if bool(entry.split) != bool(entries[0].split):
                without = entries[0].file_name if entry.split else name
                fault = f"some images have a split and others, like '{without}', have none"
                raise self.error(place, fault)
        return list(entries)


def kind(value: object) -> str:
    """Returns what JSON calls a value's type, with an article, for the error's sentence."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    names: dict[type, str] = {str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")
