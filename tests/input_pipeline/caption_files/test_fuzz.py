"""However a caption file is damaged: one sentence, or entries that hold what they promise."""

from __future__ import annotations

import contextlib
import re
import signal
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from caption_damage import Variant
from caption_formats import FORMATS, Format, snapshot

from input_pipeline.caption_files import Entry
from input_pipeline.errors import DataError


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Interrupts what takes longer, as opening a pipe that nobody writes to does."""

    def stop(*_: object) -> None:
        # No OSError: what reads a file may turn that into a sentence.
        raise AssertionError(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def is_safe(name: str) -> bool:
    parts = name.split("/")
    controls = any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)
    return (
        not controls
        and "\\" not in name
        and not re.match("[A-Za-z]:", name)
        and not any(part in ("", ".", "..") for part in parts)
        and name == name.strip()
        and len(name) <= 1024
    )


def fault_of(entries: list[Entry]) -> str | None:
    """Says what an entry promises and does not hold."""
    names = [entry.file_name for entry in entries]
    if not entries or len(set(names)) != len(names):
        return "no image, or one twice"
    if len({bool(entry.split) for entry in entries}) > 1:
        return "splits on some images"
    for entry in entries:
        texts = [entry.file_name, entry.folder, *entry.captions]
        if not all(type(text) is str for text in texts) or type(entry.captions) is not tuple:
            return f"wrong types in {entry}"
        for text in texts:
            text.encode("utf-8")
        if not is_safe(entry.file_name) or "/" in entry.folder:
            return f"an unsafe name in {entry}"
        if entry.folder and not is_safe(entry.folder):
            return f"an unsafe folder in {entry}"
        if entry.split not in ("train", "validation", "test", ""):
            return f"an unknown split in {entry}"
        if not entry.captions or not all(text.strip() == text != "" for text in entry.captions):
            return f"a blank caption in {entry}"
        if any(len(text.splitlines()) > 1 or "\0" in text for text in entry.captions):
            return f"a caption of several lines in {entry}"
    return None


def fault_of_sentence(sentence: str, files: Mapping[str, bytes]) -> str | None:
    """Says what is wrong with an error's sentence."""
    if len(sentence.splitlines()) != 1 or not sentence.endswith("."):
        return f"no one sentence: {sentence!r}"
    if not any(name in sentence for name in files):
        return f"no file named: {sentence!r}"
    sentence.encode("utf-8")
    return None


def fault(case: Format, variant: Variant, folder: Path, undamaged: list[Entry]) -> str | None:
    """Reads a damaged folder and says what is wrong with the outcome."""
    before = snapshot(folder.parent)
    try:
        with within(5):
            entries = case.read(folder)
        found = fault_of(entries)
        if variant.outcome == "refused":
            found = "accepted"
        if variant.outcome == "same" and entries != undamaged:
            found = "other entries"
    except DataError as error:
        found = fault_of_sentence(str(error), case.files)
        if variant.outcome == "same":
            found = f"refused: {error}"
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    return "files changed" if snapshot(folder.parent) != before else found


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_give_one_sentence_or_sound_entries(name, tmp_path):
    case = FORMATS[name]
    case.write(tmp_path / "undamaged")
    undamaged = case.read(tmp_path / "undamaged")
    faults = [] if fault_of(undamaged) is None else ["undamaged"]
    count = 0
    for count, variant in enumerate(case.variants(), start=1):
        # What is outside of the folder is valid, lest it be refused for something else.
        for inside in ("data", "outside"):
            case.write(tmp_path / str(count) / inside)
        folder = tmp_path / str(count) / "data"
        variant.damage(folder)
        found = fault(case, variant, folder, undamaged)
        if found:
            faults.append(f"{variant.name}: {found}")
    assert not faults, "\n".join(faults)
    assert count >= 200
