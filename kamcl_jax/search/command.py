"""What `--mode=search` does, and says."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from input_pipeline.errors import DataError
from input_pipeline.images import files, reader
from input_pipeline.language.tokens import tokenize
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.ranking.top_k import top_k
from kamcl_jax.search import contact_sheet, query_files, searching
from kamcl_jax.search import index as image_index
from kamcl_jax.search.contact_sheet import Query, Shown
from kamcl_jax.search.index import ImageIndex
from kamcl_jax.search.printable import printable
from kamcl_jax.search.query_files import Line
from kamcl_jax.search.searching import Found

SHEET = "found.png"
"""Where the contact sheet goes in the folder of the index, unless told."""

QUERIES_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class Wishes:
    """How to search.

    Attributes:
      k: images, and captions, that a query finds.
      approximate: through FAISS.
      out: file for what was found; None is `SHEET` in the folder of the index.
    """

    k: int
    approximate: bool = False
    out: Path | None = None


def by_sentence(folder: Path, query: str, wishes: Wishes) -> None:
    """Prints the images that a sentence finds, and draws them.

    Args:
      folder: of the index.
      query: the sentence.
      wishes: how to search.

    Raises:
      DataError: the index cannot be read, the sentence has no word, or `out` cannot be written.
    """
    index, sheet = _open(folder), _sheet(folder, wishes)
    tell_unread_words(index.model, query)
    (found,) = searching.search(
        index, index.model.encode_texts([query]), wishes.k, approximate=wishes.approximate
    )
    _show(index, Query(query), found, sheet)


def by_image(folder: Path, image: Path, captions: Path | None, wishes: Wishes) -> None:
    """Prints the images that are like an image, and captions that fit it, and draws them.

    Args:
      folder: of the index.
      image: its file.
      captions: file of captions, one a line, of which the best are found; or None.
      wishes: how to search.

    Raises:
      DataError: a file cannot be read, or `out` cannot be written.
    """
    lines = _with_words(captions) if captions else []
    index, sheet = _open(folder), _sheet(folder, wishes)
    picture = _read(image, index)
    embedding = index.model.encode_images([picture])
    (found,) = searching.search(index, embedding, wishes.k, approximate=wishes.approximate)
    best = _best_captions(index.model, embedding, lines, wishes.k)
    for place, (text, score) in enumerate(best, 1):
        print(f"{place:>4}  {score:.4f}  {printable(text)}")
    if best:
        print()
    _show(index, Query(image.name, picture, best), found, sheet)


def by_file(folder: Path, queries: Path, wishes: Wishes) -> None:
    """Writes the images that each sentence of a file finds.

    Args:
      folder: of the index.
      queries: file of sentences, one a line.
      wishes: how to search; `out` says where to write.

    Raises:
      DataError: a file cannot be read, or `out` cannot be written.
    """
    if wishes.out is None:
        raise DataError("--queries needs --out=FILE.csv or FILE.jsonl.")
    query_files.check_suffix(wishes.out)
    _check_folder(wishes.out)
    lines = _with_words(queries)
    index = _open(folder)
    for line in lines:
        tell_unread_words(index.model, line.text, f"line {line.number}: ")
    bar = tqdm(total=len(lines), desc="searching", unit="query", mininterval=1.0, delay=1.0)
    with bar, query_files.written(wishes.out) as write:
        for start in range(0, len(lines), QUERIES_AT_ONCE):
            some = lines[start : start + QUERIES_AT_ONCE]
            embeddings = index.model.encode_texts([line.text for line in some])
            found = searching.search(index, embeddings, wishes.k, approximate=wishes.approximate)
            for line, images in zip(some, found, strict=True):
                write(line, images)
            bar.update(len(some))
    print(f"{len(lines)} queries, {min(wishes.k, len(index.files))} images each: {wishes.out}")


def tell_unread_words(model: TrainedModel, query: str, where: str = "") -> None:
    """Says on stderr which words of a query the model does not know, and whether it is cut."""
    if model.is_cut(query):
        most = model.config.data.max_tokens
        print(f"{where}the model reads the first {most} words", file=sys.stderr, flush=True)
    unknown = model.unknown_words(query)
    if unknown:
        words = ", ".join(printable(word) for word in unknown)
        print(f"{where}the model does not know: {words}", file=sys.stderr, flush=True)


def _open(folder: Path) -> ImageIndex:
    index = image_index.open_index(folder, with_model=True)
    if not index.files:
        raise DataError(f"The index {folder} has no images yet: --mode=index goes on with it.")
    return index


def _sheet(folder: Path, wishes: Wishes) -> Path:
    path = wishes.out or folder / SHEET
    if path.suffix.lower() != ".png":
        raise DataError(f"--out={path} must end with .png: it becomes a picture.")
    _check_folder(path)
    return path


def _check_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise DataError(f"There is no folder {path.parent} to write {path.name} into.")
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"{path} cannot be written: no permission; name another file with --out.")


def _with_words(path: Path) -> list[Line]:
    """Returns the lines of a file that have a word; says which have none."""
    kept, left_out = [], []
    for line in query_files.read_lines(path):
        if tokenize(line.text):
            kept.append(line)
        else:
            left_out.append(str(line.number))
    if not kept:
        raise DataError(f"The file {path} has no line with a word in it.")
    if left_out:
        lines = f"line{'' if len(left_out) == 1 else 's'} {', '.join(left_out)}"
        print(f"{path}: no word in {lines}, left out", file=sys.stderr, flush=True)
    return kept


def _read(path: Path, index: ImageIndex) -> Image.Image:
    try:
        return reader.read_rgb(files.read_bytes(path), index.choice)
    except files.UnreadableImageError as error:
        raise DataError(f"The image {path} cannot be read: {error}.") from error


def _best_captions(
    model: TrainedModel, image: np.ndarray, lines: Sequence[Line], k: int
) -> list[tuple[str, float]]:
    if not lines:
        return []
    (scores,), (rows,) = top_k(image, model.encode_texts([line.text for line in lines]), k)
    return [
        (lines[row].text, score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def _show(index: ImageIndex, query: Query, found: Sequence[Found], sheet: Path) -> None:
    for place, image in enumerate(found, 1):
        print(f"{place:>4}  {image.score:.4f}  {printable(image.file)}")
    shown = [
        Shown(_thumbnail(index, image.row), image.file, image.score)
        for image in found[: contact_sheet.MOST]
    ]
    contact_sheet.draw(sheet, query, shown)
    print(f"picture: {sheet}")


def _thumbnail(index: ImageIndex, row: int) -> Image.Image | None:
    try:
        image = index.read_image(row)
    except DataError:
        return None
    image.thumbnail(contact_sheet.THUMBNAIL)
    return image
