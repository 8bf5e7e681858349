"""What `--mode=index` and `--mode=search` do, and say."""

import contextlib
import csv
import dataclasses
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from input_pipeline import storage
from input_pipeline.caption_files import text_file
from input_pipeline.errors import DataError
from input_pipeline.images.bands import BandChoice
from input_pipeline.language.tokens import tokenize
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.ranking.top_k import top_k
from kamcl_jax.search import contact_sheet, searching, update_index
from kamcl_jax.search.contact_sheet import FoundImage, Query
from kamcl_jax.search.index import ImageIndex, open_index, printable
from kamcl_jax.search.searching import Found, query_notes
from kamcl_jax.search.update_index import Indexed

SHEET = "found.png"
"""Where the contact sheet goes in the folder of the index, unless `out` says otherwise."""

QUERIES_AT_ONCE = 1024
MOST_NAMED = 5
"""How many suffixes or files are named where the number of all tells enough."""

_FORMULA = ("=", "+", "-", "@", "\t")  # what a spreadsheet takes for the start of a formula


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
      k: How many images, and captions, a query finds.
      approximate: Whether to search through FAISS.
      out: The file to write; None is `SHEET` in the folder of the index.
    """

    k: int
    approximate: bool = False
    out: Path | None = None


class Line(NamedTuple):
    """A line of a file of sentences: its number, from 1, and its text."""

    number: int
    text: str


def index_images(
    open_model: Callable[[], TrainedModel], images: Path, folder: Path, choice: BandChoice
) -> None:
    """Indexes a folder of images with a model; prints what it has done."""
    update_index.check_folders(images, folder)
    done = update_index.index_images(open_model(), images, folder, choice)
    print("\n".join(report(done)))
    print(f"index: {folder}")


def report(done: Indexed) -> list[str]:
    """Returns what an indexing has done, in lines of text."""
    new, old = len(done.embedded), len(done.kept)
    lines = [
        f"{_images(new + old)} in the index: {new} embedded now, {old} there already, "
        f"{len(done.gone)} gone and dropped"
    ]
    if done.found.others:
        counts = sorted(done.found.others.items(), key=lambda item: (-item[1], item[0]))
        suffixes = [f"{suffix or 'without suffix'} {count}" for suffix, count in counts]
        lines.append(f"other files, left out: {done.found.others.total()} ({_some(suffixes)})")
    if done.found.linked_folders:
        lines.append(f"links to folders, not entered: {done.found.linked_folders}")
    if done.almost_black:
        lines.append(
            f"almost black: {_images(len(done.almost_black))} ({_some(done.almost_black)}); "
            "--stretch=2,98 shows what is in TIFF files of 11 or 12 bits"
        )
    if done.much_larger:
        lines.append(_much_larger(done.much_larger, done.image_size))
    if done.unreadable:
        lines.append(f"unreadable, left out: {len(done.unreadable)}")
        names = sorted(done.unreadable.items())
        lines.extend(f"  {printable(name)}: {reason}" for name, reason in names)
    return lines


def _much_larger(sizes: dict[str, tuple[int, int]], image_size: int) -> str:
    side, word = max(
        side for width, height in sizes.values() for side in ((width, "wider"), (height, "higher"))
    )
    are, most, them = ("is", "", "it") if len(sizes) == 1 else ("are", "up to ", "them")
    return (
        f"{_images(len(sizes))} {are} {most}{side // image_size} times {word} than the model's "
        f"{image_size} px; small things vanish in {them} ({_some(list(sizes))})"
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _some(words: list[str]) -> str:
    more = ", ..." if len(words) > MOST_NAMED else ""
    return ", ".join(map(printable, words[:MOST_NAMED])) + more


def by_sentence(folder: Path, query: str, options: SearchOptions) -> None:
    """Prints and draws the images of an index that a sentence finds."""
    index = _open(folder)
    sheet = _sheet(folder, options)
    _tell_notes(index.model, query)
    embedding = index.model.encode_texts([query])
    (found,) = searching.search(index, embedding, options.k, approximate=options.approximate)
    _show(index, Query(query), found, sheet)


def by_image(folder: Path, image: Path, captions: Path | None, options: SearchOptions) -> None:
    """Prints and draws the images of an index that are like an image file.

    With a file of captions, one a line, it also finds those of them that fit the image best.
    """
    lines = _lines_with_words(captions) if captions else []
    index = _open(folder)
    sheet = _sheet(folder, options)
    picture = index.read_file(image)
    embedding = index.model.encode_images([picture])
    (found,) = searching.search(index, embedding, options.k, approximate=options.approximate)
    best = _best_captions(index.model, embedding, lines, options.k)
    for place, (text, score) in enumerate(best, 1):
        print(f"{place:>4}  {score:.4f}  {printable(text)}")
    if best:
        print()
    _show(index, Query(image.name, picture, best), found, sheet)


def by_file(folder: Path, queries: Path, options: SearchOptions) -> None:
    """Writes the images of an index that each line of a file finds into `options.out`."""
    if options.out is None:
        raise DataError("--queries needs --out=FILE.csv or FILE.jsonl.")
    _check_writable(options.out, (".csv", ".jsonl"), "for --queries")
    lines = _lines_with_words(queries)
    index = _open(folder)
    for line in lines:
        _tell_notes(index.model, line.text, f"line {line.number}: ")
    bar = tqdm(total=len(lines), desc="searching", unit="query", mininterval=1.0, delay=1.0)
    with bar, results_file(options.out) as write:
        for start in range(0, len(lines), QUERIES_AT_ONCE):
            some = lines[start : start + QUERIES_AT_ONCE]
            embeddings = index.model.encode_texts([line.text for line in some])
            found = searching.search(index, embeddings, options.k, approximate=options.approximate)
            for line, images in zip(some, found, strict=True):
                write(line, images)
            bar.update(len(some))
    print(f"{len(lines)} queries, {min(options.k, len(index.files))} images each: {options.out}")
    print(searching.SCORES_NOTE)


def _open(folder: Path) -> ImageIndex:
    index = open_index(folder, with_model=True)
    if not index.files:
        raise DataError(f"The index {folder} has no images yet: --mode=index goes on with it.")
    return index


def _sheet(folder: Path, options: SearchOptions) -> Path:
    path = options.out or folder / SHEET
    _check_writable(path, (".png",), "as it becomes a picture")
    return path


def _check_writable(path: Path, suffixes: tuple[str, ...], why: str) -> None:
    if path.suffix.lower() not in suffixes:
        raise DataError(f"--out={path} must end with {' or '.join(suffixes)}, {why}.")
    if not path.parent.is_dir():
        raise DataError(f"There is no folder {path.parent} to write {path.name} into.")
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"{path} cannot be written: no permission; name another file with --out.")


def _tell_notes(model: TrainedModel, query: str, where: str = "") -> None:
    for note in query_notes(model, query):
        print(f"{where}{note}", file=sys.stderr, flush=True)


def _lines_with_words(path: Path) -> list[Line]:
    """Reads the lines of a file that have a word; says which have none."""
    text = text_file.read_text(path, path.resolve().parent).removesuffix("\n")
    lines = [Line(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    kept = [line for line in lines if tokenize(line.text)]
    left_out = [str(line.number) for line in lines if line not in kept]
    if not kept:
        raise DataError(f"The file {path} has no line with a word in it.")
    if left_out:
        which = f"line{'' if len(left_out) == 1 else 's'} {', '.join(left_out)}"
        print(f"{path}: no word in {which}, left out", file=sys.stderr, flush=True)
    return kept


def _best_captions(
    model: TrainedModel, image: np.ndarray, lines: Sequence[Line], k: int
) -> list[tuple[str, float]]:
    if not lines:
        return []
    texts = list(dict.fromkeys(line.text for line in lines))
    (scores,), (rows,) = top_k(image, model.encode_texts(texts), k)
    return [(texts[row], score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)]


def _show(index: ImageIndex, query: Query, found: Sequence[Found], sheet: Path) -> None:
    for place, image in enumerate(found, 1):
        print(f"{place:>4}  {image.score:.4f}  {printable(image.file)}")
    print(searching.SCORES_NOTE)
    drawn = [
        FoundImage(_thumbnail(index, image.row), image.file, image.score)
        for image in found[: contact_sheet.MOST_IMAGES]
    ]
    contact_sheet.draw(sheet, query, drawn)
    print(f"picture: {sheet}")


def _thumbnail(index: ImageIndex, row: int) -> Image.Image | None:
    try:
        image = index.read_image(row)
    except DataError:
        return None
    image.thumbnail(contact_sheet.THUMBNAIL)
    return image


@contextlib.contextmanager
def results_file(path: Path) -> Iterator[Callable[[Line, Sequence[Found]], None]]:
    """Gives a function that writes what a query has found into a file.

    A CSV file has a row for each image, a JSONL file a line for each query; the suffix of `path`
    says which it is. The file is replaced when the block has ended well. A cell that a spreadsheet
    would take for a formula is made harmless: a file's name begins with `./`, which names the same
    file, and a query with an apostrophe.
    """
    with storage.replaced(path, storage.PART) as file:
        # A name that is not UTF-8 has halves of surrogate pairs, which become JSON's \udcff.
        text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="")
        try:
            if path.suffix.lower() == ".csv":
                csv.writer(text).writerow(("line", "query", "rank", "score", "file"))
                yield lambda line, found: _write_csv(text, line, found)
            else:
                yield lambda line, found: _write_jsonl(text, line, found)
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
