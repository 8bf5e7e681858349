"""Makes damaged variants of caption files, the same ones every time."""

from __future__ import annotations

import codecs
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

NAMES = [
    *("", " ", ".", "..", "../../x.jpg", "a/../../x.jpg", "..\\x.jpg", "/etc/x.jpg", "C:/x.jpg"),
    *("C:\\x.jpg", "//host/x.jpg", "\\\\host\\x.jpg", "./port_1.jpg", "sub//port_1.jpg", "x\x7f"),
    *("a\tb.jpg", "a\x1b[2Jb.jpg", "a\u2028b.jpg", "a\x85b.jpg", "x" * 1025, "飛.jpg", "a/", "x\0"),
    *("./C:/x.jpg", " \nport\t"),
]
"""What may stand where a file name, a caption or a split should."""

VALUES = [None, True, 0, -1.5, [], {}, [[]], ["x"], {"raw": "x"}, *NAMES, "\ud800", "train", "VAL"]
"""The same for JSON."""

KEYS = [
    *("", " \nport ", "..", "a/b", "C:", "x\0", "\ud800", "x" * 1025, "images", "caption", "raw_2"),
]
"""What a key may be instead."""

CELLS = [*NAMES, "9" * 5000, '"', 'x"y"', "a,b", "train", "VAL"]
"""The same as `VALUES` for text."""

WRITTEN = {
    "@nan@": "NaN",
    "@infinity@": "-Infinity",
    "@huge@": "9" * 5000,
    "@large@": "1e999",
    "@deep@": "[" * 100_000 + "]" * 100_000,
    "@half@": "[1, ",
    "@bare@": "x",
}
"""Stand-ins for what `json.dumps` does not write; all but the large number are refused."""

AGAIN = "@again@"
"""Start of a key that gets the name of another."""


@dataclass(frozen=True)
class Variant:
    """One way to damage a folder of caption files.

    Attributes:
      name: for the message of a failing test.
      damage: changes the folder.
      outcome: 'refused' or 'same' where nothing else will do, 'either' where the file may still
        mean something.
    """

    name: str
    damage: Callable[[Path], None]
    outcome: str = "either"


def variants(files: Mapping[str, bytes], seed: int) -> Iterator[Variant]:
    """Yields what is done to any format's files.

    Args:
      files: name -> content of the undamaged files.
      seed: of the random choices.
    """
    chance = random.Random(seed)
    for name, content in files.items():
        yield from _replaced(name)
        yield from _encoded(name, content)
        yield from _lines(name, content)
    for index in range(140):
        name = chance.choice(list(files))
        how = (_truncated, _flipped, _inserted, _deleted)[index % 4]
        damaged = how(files[name], chance)
        yield Variant(f"{how.__name__} {index} of {name}", partial(_write, name, damaged))


def json_variants(name: str, content: Any, write: Callable[[Any], str]) -> Iterator[Variant]:
    """Yields changes of JSON values and keys, in every position.

    Args:
      name: of the file.
      content: that it holds.
      write: content -> the file's text.
    """
    for place, change in _json_changes(content):
        changed = json.loads(json.dumps(content))
        text = write(change(changed))
        refused = any(mark in text for mark in (AGAIN, *WRITTEN) if mark != "@large@")
        for stand_in, written in WRITTEN.items():
            text = text.replace(f'"{stand_in}"', written)
        written = partial(_write, name, text.replace(AGAIN, "").encode())
        yield Variant(f"{place} in {name}", written, "refused" if refused else "either")


def cell_variants(name: str, rows: list[list[str]], write: Callable[[Any], str]):
    """Yields changes of the cells of a text file, in every position; see `json_variants`."""
    for row, cells in enumerate(rows):
        for column in range(len(cells)):
            for value in [*CELLS, cells[column - 1]]:
                changed = [list(cells) for cells in rows]
                changed[row][column] = value
                text = write(changed).encode()
                yield Variant(
                    f"{value!r:.40} at {row}, {column} of {name}", partial(_write, name, text)
                )


def _write(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)


def _replaced(name: str) -> Iterator[Variant]:
    """Something else in a file's place."""

    def by_link(target: str, folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    def by_folder(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    def by_pipe(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    def by_nothing(folder: Path) -> None:
        (folder / name).unlink()

    for target in (f"../outside/{name}", "nowhere", name, "/dev/null", ".", "../outside"):
        yield Variant(f"{name} -> {target}", partial(by_link, target), "refused")
    yield Variant(f"{name} a folder", by_folder, "refused")
    yield Variant(f"{name} a pipe", by_pipe, "refused")
    yield Variant(f"{name} missing", by_nothing, "refused")


def _encoded(name: str, content: bytes) -> Iterator[Variant]:
    text = content.decode()
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"):
        written = partial(_write, name, text.encode(encoding))
        yield Variant(f"{name} in {encoding}", written, "refused")
    latin = text.replace("飛", "é").encode("latin-1")
    with_nul = content[:-3] + b"\0" + content[-3:]
    for kind, changed, outcome in [
        ("latin-1", latin, "either" if text.isascii() else "refused"),
        ("utf-7", text.encode("utf-7"), "either"),
        ("UTF-16's mark before UTF-8", codecs.BOM_UTF16_LE + content, "refused"),
        ("a mark", codecs.BOM_UTF8 + content, "same"),
        ("two marks", codecs.BOM_UTF8 * 2 + content, "either"),
        ("CRLF", content.replace(b"\n", b"\r\n"), "same"),
        ("CR", content.replace(b"\n", b"\r"), "same"),
        ("a NUL", with_nul, "refused"),
        ("a NUL first", b"\0" + content, "refused"),
        ("nothing", b"", "refused"),
        ("white space", b" \r\n\t\n", "refused"),
        ("nothing but commas", b",\n,,\n", "either"),
        ("nothing but quotes", b'""', "either"),
        ("a mark alone", codecs.BOM_UTF8, "refused"),
        ("an empty line more", content + b"\n", "either"),
        ("itself twice", content + content, "either"),
    ]:
        yield Variant(f"{name} with {kind}", partial(_write, name, changed), outcome)


def _lines(name: str, content: bytes) -> Iterator[Variant]:
    lines = content.splitlines(keepends=True)
    for index, line in enumerate(lines):
        before, after = lines[:index], lines[index + 1 :]
        for kind, changed in [
            ("without", [*before, *after]),
            ("twice", [*before, line, line, *after]),
            ("first", [line, *before, *after]),
            ("an empty line for", [*before, b"\n", *after]),
        ]:
            written = partial(_write, name, b"".join(changed))
            yield Variant(f"{name} with {kind} line {index + 1}", written)


def _truncated(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _inserted(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content) + 1)
    return content[:at] + chance.randbytes(chance.randint(1, 4)) + content[at:]


def _deleted(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + content[at + chance.randint(1, 12) :]


def _json_changes(content: Any) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Yields where and how to change a copy of the content; the copy may be changed itself."""
    for value in [*VALUES, *WRITTEN]:
        yield f"{value!r:.40} for all", lambda _, value=value: value
    for path in _positions(content):
        place = "".join(f"[{key!r}]" for key in path)
        for value in [*VALUES, *WRITTEN]:
            yield f"{value!r:.40} at {place}", partial(_put, path, lambda _, value=value: value)
        yield f"a list of what is at {place}", partial(_put, path, lambda old: [old])
        yield f"nothing at {place}", partial(_take, path, ())
        if isinstance(path[-1], str):
            for key in (f"{path[-1]}x", path[-1].upper(), *KEYS):
                yield f"the key {key!r:.40} for {place}", partial(_take, path, (key,))
            yield f"{place} twice", partial(_take, path, (path[-1], f"{AGAIN}{path[-1]}"))


def _positions(content: Any, path: tuple = ()) -> Iterator[tuple]:
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in pairs:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from _positions(value, (*path, key))


def _parent(path: tuple, content: Any) -> Any:
    for key in path[:-1]:
        content = content[key]
    return content


def _put(path: tuple, make: Callable[[Any], Any], content: Any) -> Any:
    parent = _parent(path, content)
    parent[path[-1]] = make(parent[path[-1]])
    return content


def _take(path: tuple, keys: tuple[str, ...], content: Any) -> Any:
    """Removes a value, and puts it back under other keys."""
    parent = _parent(path, content)
    value = parent.pop(path[-1])
    for key in keys:
        parent[key] = value
    return content
