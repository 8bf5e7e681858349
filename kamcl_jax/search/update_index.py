"""Embeds a folder of images into an index, and brings an index up to date."""

import contextlib
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from input_pipeline import storage
from input_pipeline.errors import DataError
from input_pipeline.images.bands import BandChoice
from input_pipeline.images.files import image_bar
from kamcl_jax.export import model_folder
from kamcl_jax.inference import identity
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.search import index
from kamcl_jax.search.image_folder import FoundFiles, ReadImage, find_images, read_images
from kamcl_jax.search.index import Append, FileState, IndexRows, IndexSettings

BATCHES_AHEAD = 3
COPIED_AT_ONCE = 2**14
ALMOST_BLACK = 16
"""An image whose brightest value is less was probably meant to be stretched."""

MUCH_LARGER = 8
"""How many times the model's image size a side may have before small things vanish."""

_CARD = """# The model of an index of images

It has embedded the images of the index that this folder is a part of, and embeds the queries.
`kamcl_jax.load` opens it.
"""


@dataclasses.dataclass(frozen=True)
class Indexed:
    """What an indexing has done.

    Attributes:
      image_size: Pixels a side that the model sees of an image.
      found: What lies in the folder.
      kept: The images whose rows were there already.
      gone: The images that were in the index, and that the folder has no more. Those that are there
        but have become unreadable are not among them.
      embedded: The images whose rows are new.
      unreadable: The images that are not in the index, with reasons in a few words.
      almost_black: The embedded images without any value of `ALMOST_BLACK` or more.
      much_larger: The embedded images with a side of more than `MUCH_LARGER` times `image_size`,
        with their widths and heights in pixels.
    """

    image_size: int
    found: FoundFiles
    kept: list[str]
    gone: list[str]
    unreadable: dict[str, str]
    embedded: list[str] = dataclasses.field(default_factory=list)
    almost_black: list[str] = dataclasses.field(default_factory=list)
    much_larger: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


def index_images(
    model: TrainedModel, images: Path, folder: Path, choice: BandChoice | None = None
) -> Indexed:
    """Makes an index, or brings one up to date: only new and changed files are embedded.

    If the images were embedded by another image encoder, or read otherwise, all of them are
    embedded anew. In any case the index has the given model from then on, which embeds queries.

    Whatever interrupts it, the index stays usable as it was, and the same call goes on with the
    images that are not embedded yet.

    Args:
      model: The model that embeds.
      images: The folder of the images; those in folders below it count, too.
      folder: The folder of the index, made if absent.
      choice: The bands of TIFF files.
    """
    root, folder, choice = images.resolve(), folder.resolve(), choice or BandChoice()
    found = find_images(root, without=folder)
    if not found.images:
        others = found.others.total()
        what = f"are {others} files, but no images" if others else "are no images"
        raise DataError(f"There {what} in {images} and the folders in it.")
    with _locked(folder):
        return _update(model, root, folder, choice, found)


def check_folders(images: Path, folder: Path) -> None:
    """Refuses folders that cannot be indexed, before the user has waited for a model."""
    if not images.is_dir():
        raise DataError(f"There is no folder {images} of images.")
    if folder.exists() and not folder.is_dir():
        raise DataError(f"The index {folder} is a file, not a folder.")
    if folder.resolve() == images.resolve():
        raise DataError(f"The index needs a folder of its own, not the folder {images} of images.")
    _current_generation(folder, images.resolve())


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        with storage.lock(folder, advice="name another --index"):
            yield
    except OSError as error:
        raise DataError(f"The index {folder} cannot be written: {error.strerror}.") from error


def _update(
    model: TrainedModel, root: Path, folder: Path, choice: BandChoice, found: FoundFiles
) -> Indexed:
    image_encoder, text_encoder = identity.identity(model)
    widths = model.config.embedding_size, len(model.concepts)
    settings = IndexSettings(image_encoder, text_encoder, choice, widths)
    before = _names_before(folder, settings)
    current = _current_generation(folder, root)
    number = _generation_to_fill(folder, current, settings, found.images, model)
    generation = index.generation_of(folder, number)
    storage.remove_unfinished(generation)
    if not current:  # a first indexing can be searched as far as it has come
        _make_current(folder, number, root)
    done = Indexed(
        image_size=model.config.image_size,
        found=found,
        kept=[state.name for state in index.read_rows(generation, widths).states],
        gone=[name for name in before if not found.may_hold(name)],
        unreadable=dict(found.unreadable),
    )
    missing = sorted(found.images.keys() - set(done.kept))
    with index.row_writer(generation, widths) as append:
        _embed(model, root, [found.images[name] for name in missing], choice, append, done)
    _make_current(folder, number, root)
    for other in _numbers(folder):
        if other != number:
            _remove(index.generation_of(folder, other))
    return done


def _names_before(folder: Path, settings: IndexSettings) -> list[str]:
    if not (folder / index.POINTER).exists():
        return []
    before = index.open_index(folder)
    if before.settings != settings:
        if before.settings.has_same_rows(settings):
            what = "another text encoder or settings of it"
            then = "its model is replaced, its rows are kept"
        else:
            other_model = before.settings.image_encoder != settings.image_encoder
            what = (
                "another model or settings of it" if other_model else "other --bands or --stretch"
            )
            then = "all images are embedded anew"
        print(f"{folder} was made with {what}: {then}", file=sys.stderr, flush=True)
    return list(before.files)


def _embed(
    model: TrainedModel,
    root: Path,
    states: list[FileState],
    choice: BandChoice,
    append: Append,
    done: Indexed,
) -> None:
    batch_size = min(model.config.evaluation.batch_size, len(states))
    ahead = BATCHES_AHEAD * batch_size
    reading = read_images(root, states, done.image_size, choice, ahead, model.fitting)
    with contextlib.closing(reading), image_bar("embedding", len(states)) as bar:

        def readable() -> Iterator[ReadImage]:
            for image in reading:
                if isinstance(image.pixels, str):
                    done.unreadable[image.state.name] = image.pixels
                    bar.update()
                else:
                    yield image

        images = readable()
        while batch := list(islice(images, batch_size)):
            pixels = np.stack([image.pixels for image in batch])
            # The last image fills up the last batch: one size means one compilation.
            filled = pixels[np.minimum(np.arange(batch_size), len(batch) - 1)]
            encoded = model.encode_images_with_concepts(filled, batch_size)
            embeddings, concepts = (np.asarray(part)[: len(batch)] for part in encoded)
            append([image.state for image in batch], embeddings, concepts)
            for image, brightest in zip(batch, pixels.max(axis=(1, 2, 3)), strict=True):
                name, size = image.state.name, image.original_size
                done.embedded.append(name)
                if brightest < ALMOST_BLACK:
                    done.almost_black.append(name)
                if max(size) > MUCH_LARGER * done.image_size:
                    done.much_larger[name] = size
            bar.update(len(batch))


def _current_generation(folder: Path, images_root: Path) -> int:
    """Returns the number of the current generation, 0 if there is no index yet."""
    if not (folder / index.POINTER).exists():
        return 0
    number, root = index.read_pointer(folder)
    if root != images_root and root.is_dir():
        raise DataError(
            f"{folder} is an index of {root}, not of {images_root}: name another --index."
        )
    return number


def _generation_to_fill(
    folder: Path,
    current: int,
    settings: IndexSettings,
    wanted: Mapping[str, FileState],
    model: TrainedModel,
) -> int:
    """Finds or makes a generation that has rows only of files that are wanted as they are now."""
    # Beyond the current one lies what an interrupted indexing has left: it goes on from there.
    numbers = [number for number in _numbers(folder) if number >= current]
    blocks: Iterable[IndexRows] = ()
    for number in reversed(numbers):
        generation = index.generation_of(folder, number)
        found = index.read_settings(generation)
        if found.has_same_rows(settings):
            rows = index.read_rows(generation, settings.widths)
            kept = [row for row, state in enumerate(rows.states) if wanted.get(state.name) == state]
            if found == settings and len(kept) == len(rows.states):
                return number
            blocks = _blocks(rows, kept)
            break
    new = max(numbers, default=0) + 1
    with storage.written_folder(index.generation_of(folder, new)) as made:
        model_folder.write(made / index.MODEL, model, _CARD)
        storage.write_text(made / index.SETTINGS, index.settings_as_json(settings))
        with index.row_writer(made, settings.widths) as append:
            for block in blocks:
                append(*block)
    return new


def _blocks(rows: IndexRows, kept: list[int]) -> Iterator[IndexRows]:
    for start in range(0, len(kept), COPIED_AT_ONCE):
        some = kept[start : start + COPIED_AT_ONCE]
        states = [rows.states[row] for row in some]
        yield IndexRows(states, rows.embeddings[some], rows.concepts[some])


def _make_current(folder: Path, number: int, images_root: Path) -> None:
    pointer = {"format": index.FORMAT, "generation": number, "images": str(images_root)}
    storage.write_text(folder / index.POINTER, json.dumps(pointer) + "\n")


def _numbers(folder: Path) -> list[int]:
    names = (path.name.removeprefix("generation_") for path in folder.glob("generation_*"))
    return sorted(int(name) for name in names if name.isdecimal())


def _remove(generation: Path) -> None:
    # What a kill leaves of it has a name that no run trusts, and goes with the next lock.
    unfinished = generation.with_name(f".{generation.name}{storage.UNFINISHED}")
    with contextlib.suppress(OSError):
        os.replace(generation, unfinished)
        shutil.rmtree(unfinished, ignore_errors=True)
