"""Embeds a folder of images: what `--mode=index` does."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from input_pipeline import storage
from input_pipeline.errors import DataError
from input_pipeline.images.bands import BandChoice
from input_pipeline.images.files import image_bar
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.search import found_files, generations
from kamcl_jax.search import index as image_index
from kamcl_jax.search.found_files import FoundFiles
from kamcl_jax.search.index import GenerationSettings
from kamcl_jax.search.index_rows import FileState, RowWriter
from kamcl_jax.search.read_ahead import ReadImage, read_ahead

BATCHES_AHEAD = 3
ALMOST_BLACK = 16
"""An image whose brightest value is less was probably meant to be stretched."""


@dataclasses.dataclass(frozen=True)
class Indexed:
    """What an indexing has done.

    Attributes:
      kept: names of images whose rows were there already.
      embedded: names of images whose rows are new.
      gone: names of images that were in the index, and that the folder has no more; those that are
        there and have become unreadable are not among them.
      unreadable: names of files that are not in the index, with reasons in a few words.
      almost_black: names of embedded images with no value of `ALMOST_BLACK` or more.
      found: what lies in the folder.
    """

    kept: list[str]
    embedded: list[str]
    gone: list[str]
    unreadable: dict[str, str]
    almost_black: list[str]
    found: FoundFiles


def index_images(
    model: TrainedModel, images: Path, folder: Path, choice: BandChoice | None = None
) -> Indexed:
    """Makes an index, or brings one up to date: only new and changed files are embedded.

    If the images were embedded by another image encoder, or read otherwise, all of them are
    embedded anew. In any case the index has the named model from then on, which embeds queries.

    Whatever interrupts it, the index stays usable as it was, and the same call goes on with the
    images that are not embedded yet.

    Args:
      model: that embeds.
      images: folder of the images; those in folders below it count, too.
      folder: of the index, made if absent.
      choice: of bands.

    Raises:
      DataError: there are no images, or the index is damaged or one of another folder.
      ExportError: the model cannot be written into the index.
    """
    check(images, folder)
    root, folder, choice = images.resolve(), folder.resolve(), choice or BandChoice()
    found = found_files.find(root, without=folder)
    if not found.images:
        raise DataError(f"{_no_images(found)} in {images} and the folders in it.")
    with _locked(folder):
        return _update(model, root, folder, choice, found)


def check(images: Path, folder: Path) -> None:
    """Refuses what cannot be indexed, before a model is loaded.

    Args:
      images: folder of the images.
      folder: of the index.

    Raises:
      DataError: there is no such folder, or the index is damaged or one of another folder.
    """
    if not images.is_dir():
        raise DataError(f"There is no folder {images} of images.")
    if folder.exists() and not folder.is_dir():
        raise DataError(f"The index {folder} is a file, not a folder.")
    if folder.resolve() == images.resolve():
        raise DataError(f"The index needs a folder of its own, not the folder {images} of images.")
    generations.that_counts(folder, images.resolve())


def _no_images(found: FoundFiles) -> str:
    others = sum(found.others.values())
    return f"There are {others} files, but no images" if others else "There are no images"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise DataError(f"The index {folder} cannot be written: no permission.")
        with storage.lock(folder, advice="name another --index"):
            yield
    except OSError as error:
        raise DataError(f"The index {folder} cannot be written: {error.strerror}.") from error


def _update(
    model: TrainedModel, root: Path, folder: Path, choice: BandChoice, found: FoundFiles
) -> Indexed:
    settings = generations.settings_of(model, choice)
    before = _names_before(folder, settings)
    target = generations.open_target(folder, root, settings, found.images, model)
    kept = [state.name for state in target.kept.files]
    missing = [found.images[name] for name in found.images.keys() - kept]
    with RowWriter(
        image_index.generation_of(folder, target.number), *settings.rows.widths
    ) as writer:
        embedded = _embed(model, root, sorted(missing), choice, writer)
    generations.finish(folder, target.number, root)
    return Indexed(
        kept=kept,
        embedded=embedded.names,
        gone=[name for name in before if not _is_there(name, found)],
        unreadable=found.unreadable | embedded.unreadable,
        almost_black=embedded.almost_black,
        found=found,
    )


def _is_there(name: str, found: FoundFiles) -> bool:
    """Whether a file is, or may be, in the folder, readable or not."""
    hidden = (folder for folder in found.unreadable if folder.endswith("/"))
    return name in found.images or name in found.unreadable or any(map(name.startswith, hidden))


def _names_before(folder: Path, settings: GenerationSettings) -> list[str]:
    """Returns which images the index has; says so if it will be another one of them."""
    if not (folder / image_index.POINTER).exists():
        return []
    index = image_index.open_index(folder)
    before, now = index.settings.rows, settings.rows
    if before != now:
        model = before.image_encoder != now.image_encoder
        why = "another model or settings of it" if model else "other --bands or another --stretch"
        told = f"{why}: all images are embedded anew"
    elif index.settings != settings:
        told = "another text encoder or settings of it: its model is replaced, its rows are kept"
    else:
        return list(index.files)
    print(f"{folder} was made with {told}", file=sys.stderr, flush=True)
    return list(index.files)


class _Embedded(NamedTuple):
    names: list[str]
    unreadable: dict[str, str]
    almost_black: list[str]


def _embed(
    model: TrainedModel,
    root: Path,
    states: list[FileState],
    choice: BandChoice,
    writer: RowWriter,
) -> _Embedded:
    """Embeds images and writes their rows, batch by batch."""
    done = _Embedded([], {}, [])
    batch_size = min(model.config.evaluation.batch_size, len(states))
    ahead = BATCHES_AHEAD * batch_size
    reading = read_ahead(root, states, model.config.image_size, choice, ahead)
    with contextlib.closing(reading), image_bar("embedding", len(states)) as bar:
        readable = _readable(reading, done.unreadable, bar.update)
        while batch := list(islice(readable, batch_size)):
            pixels = np.stack([image.pixels for image in batch])
            encoded = model.encode_images_with_concepts(_filled(pixels, batch_size), batch_size)
            written = [image.state for image in batch]
            embeddings, concepts = (np.asarray(part)[: len(batch)] for part in encoded)
            writer.append(written, embeddings, concepts)
            names = [state.name for state in written]
            dark = pixels.max(axis=(1, 2, 3)) < ALMOST_BLACK
            done.names.extend(names)
            done.almost_black.extend(np.array(names, object)[dark])
            bar.update(len(batch))
    return done


def _readable(
    images: Iterator[ReadImage], unreadable: dict[str, str], count: Callable[[], object]
) -> Iterator[ReadImage]:
    """Yields the images that could be read; notes why the others could not, and counts them."""
    for image in images:
        if isinstance(image.pixels, str):
            unreadable[image.state.name] = image.pixels
            count()
        else:
            yield image


def _filled(pixels: np.ndarray, batch_size: int) -> np.ndarray:
    """Repeats the last of [B, ...] up to [batch_size, ...]: one size means one compilation."""
    return pixels[np.minimum(np.arange(batch_size), len(pixels) - 1)]
