"""Files of queries, and of what they have found."""

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from input_pipeline import storage
from input_pipeline.caption_files import text_file
from input_pipeline.errors import DataError
from kamcl_jax.search.searching import Found

COLUMNS = ("line", "query", "rank", "score", "file")
SUFFIXES = (".csv", ".jsonl")

_FORMULA = ("=", "+", "-", "@", "\t")  # what a spreadsheet takes for the start of a formula


class Line(NamedTuple):
    """A line of a file of sentences.

    Attributes:
      number: from 1.
      text: without space around it.
    """

    number: int
    text: str


Write = Callable[[Line, Sequence[Found]], None]
"""Writes what a query has found."""


def read_lines(path: Path) -> list[Line]:
    """Reads sentences, one a line, blank ones too.

    Args:
      path: of a UTF-8 file.

    Raises:
      DataError: it cannot be read.
    """
    text = text_file.read_text(path, path.resolve().parent).removesuffix("\n")
    return [Line(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]


def check_suffix(path: Path) -> None:
    """Refuses a file of results that is neither CSV nor JSONL.

    Raises:
      DataError: its name ends otherwise.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"--out={path} must end with .csv or .jsonl, for --queries.")


@contextlib.contextmanager
def written(path: Path) -> Iterator[Write]:
    """Gives a function that writes what a query has found, into a file.

    A CSV file has a row for each image, a JSONL file a line for each query. In CSV a cell that a
    spreadsheet would take for a formula is made harmless: a file's name begins with `./`, which
    names the same file, and a query with an apostrophe.

    Args:
      path: of the file, whose suffix says which of both it is; it is replaced when the block has
        ended well.
    """
    write = _write_csv if path.suffix.lower() == ".csv" else _write_jsonl
    with storage.replaced(path, storage.PART) as file:
        # A name that is not UTF-8 has halves of surrogate pairs: they become JSON's \udcff.
        text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="")
        try:
            if write is _write_csv:
                csv.writer(text).writerow(COLUMNS)
            yield lambda line, found: write(text, line, found)
        finally:
            text.detach()


def _write_jsonl(file: IO[str], line: Line, found: Sequence[Found]) -> None:
    images = [
        {"rank": rank, "score": round(image.score, 6), "file": image.file}
        for rank, image in enumerate(found, 1)
    ]
    record = {"line": line.number, "query": line.text, "found": images}
    file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _write_csv(file: IO[str], line: Line, found: Sequence[Found]) -> None:
    query = f"'{line.text}" if line.text.startswith(_FORMULA) else line.text
    for rank, image in enumerate(found, 1):
        name = f"./{image.file}" if image.file.startswith(_FORMULA) else image.file
        csv.writer(file).writerow((line.number, query, rank, f"{image.score:.6f}", name))
