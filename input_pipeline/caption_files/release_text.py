"""Reads the text files that come with the KAMCL release, and with GaLR and AMFMN before it.

`SPLIT_caps.txt` has five lines an image, `SPLIT_filename.txt` one line an image or one a caption.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from input_pipeline.caption_files.entry import Entry, EntryParser
from input_pipeline.caption_files.text_file import read_text
from input_pipeline.errors import DataError

CAPTIONS_AN_IMAGE = 5


def has_layout(folder: Path) -> bool:
    """Returns whether the folder has one of the files, so that it is meant to have all."""
    return any(
        os.path.lexists(folder / f"{split}_{kind}.txt")
        for split in ("train", "test")
        for kind in ("caps", "filename")
    )


def read(folder: Path, blank_captions: bool = False) -> list[Entry]:
    """Reads the training split, the validation split if there is one, and the test split.

    Args:
      folder: The folder of the text files; `val_caps.txt` and `val_filename.txt` may be missing,
        both.
      blank_captions: Whether an empty line is a caption. A line of punctuation alone always is.
    """
    entries: list[Entry] = []
    places: list[str] = []
    for name, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        captions_path, names_path = folder / f"{name}_caps.txt", folder / f"{name}_filename.txt"
        # A link to nowhere is an error, not a split that is not there.
        if split == "validation" and not any(map(os.path.lexists, (captions_path, names_path))):
            continue
        parser = EntryParser(captions_path, blank_captions)
        captions = [parser.caption(line, place) for place, line in _lines(captions_path)]
        parser.check_blank()
        name_of = EntryParser(names_path).name
        names = [name_of(line, place) for place, line in _lines(names_path)]
        lines_a_name = _lines_a_name(names_path, names, len(captions), captions_path)
        for image, first in enumerate(range(0, len(captions), CAPTIONS_AN_IMAGE)):
            line = image * lines_a_name
            own = tuple(captions[first : first + CAPTIONS_AN_IMAGE])
            entries.append(Entry(names[line], split, own))
            places.append(f"{names_path.name} line {line + 1}")
    return EntryParser(folder).check(entries, places)


def _lines(path: Path) -> list[tuple[str, str]]:
    """Returns the lines of a file, each with its place."""
    # Not splitlines: that also parts lines at characters that may stand in a caption.
    lines = read_text(path, path.parent, remedy="copy it there").removesuffix("\n").split("\n")
    return [(f"line {number}", line) for number, line in enumerate(lines, start=1)]


def _lines_a_name(path: Path, names: Sequence[str], captions: int, source: Path) -> int:
    """Returns 1 if the file has a name an image, 5 if it has one a caption."""
    if captions == len(names) * CAPTIONS_AN_IMAGE:
        return 1
    if captions != len(names) or captions % CAPTIONS_AN_IMAGE:
        raise DataError(
            f"{source} has {captions} captions for the {len(names)} lines of {path}: there must be "
            f"{CAPTIONS_AN_IMAGE} captions an image, with one file name an image or a caption."
        )
    for index, name in enumerate(names):
        if name != names[index - index % CAPTIONS_AN_IMAGE]:
            raise DataError(
                f"{path}, line {index + 1}: it names '{name}' within the five lines of another "
                "image."
            )
    return CAPTIONS_AN_IMAGE
