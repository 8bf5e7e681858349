"""A small undamaged folder of each format of caption files, and what can be done to it."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caption_damage import Variant, cell_variants, json_variants, variants

from input_pipeline.caption_files import (
    Entry,
    caption_table,
    karpathy_json,
    nwpu_json,
    release_text,
)

CAPTIONS = ["two planes .", "größe", "a port , 飛", ".", "many ships"]
IMAGES = [("sub/port_1.jpg", "train"), ("port_2.jpg", "val"), ("silo_1.jpg", "test")]


@dataclass(frozen=True)
class Format:
    """Small undamaged files of a format.

    Attributes:
      data_set: that reads such files.
      files: name -> content.
      read: folder -> its entries.
      changes: variants beyond those that any file has.
    """

    data_set: str
    files: Mapping[str, bytes]
    read: Callable[[Path], list[Entry]]
    changes: Callable[[], Iterator[Variant]]

    def variants(self) -> Iterator[Variant]:
        """Yields all that is done to the files, the same each time."""
        return itertools.chain(variants(self.files, seed=7), self.changes())

    def write(self, folder: Path) -> None:
        """Makes a folder with the undamaged files."""
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _release_text() -> Format:
    lines = {}
    for (image, split), times in zip(IMAGES, (1, 1, 5), strict=True):
        lines[f"{split}_caps.txt"] = [f"{image[:-4]} {caption}" for caption in CAPTIONS]
        lines[f"{split}_filename.txt"] = [image] * times
    lines["train_caps.txt"] += CAPTIONS
    lines["train_filename.txt"] += ["pond_1.jpg"]

    def changes() -> Iterator[Variant]:
        for name, texts in lines.items():
            rows = [[text] for text in texts]
            yield from cell_variants(name, rows, lambda rows: _lines([row[0] for row in rows]))

    files = {name: _lines(texts).encode() for name, texts in lines.items()}
    return Format("rsicd", files, release_text.read, changes)


def _json(
    data_set: str, name: str, content: Any, read: Callable, indent: int | None = None
) -> Format:
    def text(content: Any) -> str:
        return json.dumps(content, indent=indent) + "\n"

    return Format(
        data_set,
        {name: json.dumps(content, indent=indent, ensure_ascii=False).encode() + b"\n"},
        lambda folder: read(folder / name, folder),
        lambda: json_variants(name, content, text),
    )


def _karpathy_json() -> Format:
    images = [
        {
            "filename": Path(name).name,
            "filepath": "sub" if "/" in name else "",
            "split": split,
            "sentences": [{"raw": CAPTIONS[1], "imgid": 0}, {"tokens": ["a", CAPTIONS[2]]}],
        }
        for name, split in IMAGES
    ]
    content = {"images": images, "dataset": "x"}
    return _json("rsicd", "dataset_rsicd.json", content, karpathy_json.read, 1)


def _nwpu_json() -> Format:
    content = {
        "port": [
            {"filename": name, "split": split, "raw": CAPTIONS[0], "raw_1": CAPTIONS[2]}
            for name, split in IMAGES[:2]
        ],
        "silo": [{"filename": "silo_1.jpg", "split": "test", "raw": CAPTIONS[1]}],
    }
    return _json("nwpu_captions", "dataset_nwpu.json", content, nwpu_json.read)


def _csv() -> Format:
    rows = [["filename", "split", "caption"]]
    rows += [[name, split, text] for name, split in IMAGES for text in CAPTIONS[1:3]]

    def text(rows: list[list[str]]) -> str:
        file = io.StringIO(newline="")
        csv.writer(file, lineterminator="\n").writerows(rows)
        return file.getvalue()

    return Format(
        "caption_folder",
        {"captions.csv": text(rows).encode()},
        lambda folder: caption_table.read(folder / "captions.csv", folder),
        lambda: cell_variants("captions.csv", rows, text),
    )


def _json_lines() -> Format:
    rows = [
        {"filename": IMAGES[0][0], "split": "train", "captions": CAPTIONS[1:3]},
        {"filename": IMAGES[1][0], "split": "val", "caption": CAPTIONS[0]},
        {"filename": IMAGES[2][0], "split": "test", "caption_1": "x", "caption_2": ""},
    ]

    def text(rows: Any) -> str:
        return _lines([json.dumps(row) for row in (rows if isinstance(rows, list) else [rows])])

    unescaped = [json.dumps(row, ensure_ascii=False) for row in rows]
    return Format(
        "caption_folder",
        {"captions.jsonl": _lines(unescaped).encode()},
        lambda folder: caption_table.read(folder / "captions.jsonl", folder),
        lambda: json_variants("captions.jsonl", rows, text),
    )


FORMATS = {
    "release text": _release_text(),
    "Karpathy JSON": _karpathy_json(),
    "NWPU JSON": _nwpu_json(),
    "CSV": _csv(),
    "JSONL": _json_lines(),
}


def snapshot(folder: Path) -> dict[str, tuple]:
    """Returns all that a reader could have changed: names, kinds, times, links, contents."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        target = path.readlink() if path.is_symlink() else None
        content = path.read_bytes() if not target and path.is_file() else None
        found[str(path)] = (status.st_mode, status.st_mtime_ns, target, content)
    return found
