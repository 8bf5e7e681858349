"""Which generation of an index new rows go into, and when it counts."""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from input_pipeline import storage
from input_pipeline.errors import DataError
from input_pipeline.images.bands import BandChoice
from kamcl_jax.export import model_folder
from kamcl_jax.inference import identity
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.search import index, index_rows
from kamcl_jax.search.index import FORMAT, MODEL, POINTER, SETTINGS, GenerationSettings, RowSettings
from kamcl_jax.search.index_rows import FileState, IndexRows

_CARD = """# The model of an index of images

It has embedded the images of the index that this folder is a part of, and embeds the queries.
`kamcl_jax.load` opens it.
"""


class Target(NamedTuple):
    """A generation to append rows to.

    Attributes:
      number: of the generation.
      kept: the rows that are in it already.
    """

    number: int
    kept: IndexRows


def settings_of(model: TrainedModel, choice: BandChoice) -> GenerationSettings:
    """Returns what a generation depends on that a model makes.

    Args:
      model: that embeds.
      choice: how images are read.
    """
    image_encoder, text_encoder = identity.identity(model)
    width = model.config.embedding_size
    rows = RowSettings(image_encoder, choice, width, len(model.concepts))
    return GenerationSettings(rows, text_encoder)


def that_counts(folder: Path, images_root: Path) -> int:
    """Returns the number of the generation that counts, 0 if there is no index yet.

    Args:
      folder: of the index.
      images_root: absolute folder of the images that are to be indexed.

    Raises:
      DataError: the index is damaged, or one of other images that are still there.
    """
    if not (folder / POINTER).exists():
        return 0
    number, root = index.read_pointer(folder)
    if root != images_root and root.is_dir():
        raise DataError(
            f"{folder} is an index of {root}, not of {images_root}: name another --index."
        )
    return number


def open_target(
    folder: Path,
    images_root: Path,
    settings: GenerationSettings,
    wanted: Mapping[str, FileState],
    model: TrainedModel,
) -> Target:
    """Finds or makes the generation that the rows of new and changed files are to be appended to.

    It has no rows but of files that are wanted as they are. Where none counts yet, it does from
    now on.

    Args:
      folder: of the index; the caller holds its lock.
      images_root: absolute folder of the images.
      settings: of the generation.
      wanted: the files, by name.
      model: that embeds.

    Raises:
      DataError: see `that_counts`.
    """
    counts = that_counts(folder, images_root)
    # Beyond the one that counts lies what an interrupted indexing has left: it goes on from there.
    numbers = [number for number in _numbers(folder) if number >= counts]
    target = _target(folder, numbers, settings, wanted, model)
    storage.remove_unfinished(index.generation_of(folder, target.number))
    if not counts:
        _point_to(folder, target.number, images_root)
    return target


def _target(
    folder: Path,
    numbers: list[int],
    settings: GenerationSettings,
    wanted: Mapping[str, FileState],
    model: TrainedModel,
) -> Target:
    widths = settings.rows.widths
    new = max(numbers, default=0) + 1
    for number in reversed(numbers):
        generation = index.generation_of(folder, number)
        found = index.read_settings(generation)
        if found.rows != settings.rows:
            continue
        rows = index_rows.read(generation, *widths)
        kept = [row for row, state in enumerate(rows.files) if wanted.get(state.name) == state]
        if found == settings and len(kept) == len(rows.files):
            return Target(number, rows)
        with storage.written_folder(index.generation_of(folder, new)) as made:
            if found == settings:
                shutil.copytree(generation / MODEL, made / MODEL, copy_function=_link_or_copy)
            else:
                model_folder.write(made / MODEL, model, _CARD)
            _write_settings(made, settings)
            index_rows.copy(rows, np.array(kept, np.int64), made)
        break
    else:
        with storage.written_folder(index.generation_of(folder, new)) as made:
            model_folder.write(made / MODEL, model, _CARD)
            _write_settings(made, settings)
            index_rows.RowWriter(made, *widths).close()
    return Target(new, index_rows.read(index.generation_of(folder, new), *widths))


def finish(folder: Path, number: int, images_root: Path) -> None:
    """Lets a generation count, now that all of its rows are there, and removes the others.

    Args:
      folder: of the index; the caller holds its lock.
      number: of the generation.
      images_root: absolute folder of the images.
    """
    if index.read_pointer(folder) != (number, images_root):
        _point_to(folder, number, images_root)
    for other in _numbers(folder):
        if other != number:
            _remove(index.generation_of(folder, other))


def _remove(generation: Path) -> None:
    # What a kill leaves of it has a name that no run trusts, and goes with the next lock.
    unfinished = generation.with_name(f".{generation.name}{storage.UNFINISHED}")
    with contextlib.suppress(OSError):
        os.replace(generation, unfinished)
        shutil.rmtree(unfinished, ignore_errors=True)


def _numbers(folder: Path) -> list[int]:
    names = (path.name.removeprefix("generation_") for path in folder.glob("generation_*"))
    return sorted(int(name) for name in names if name.isdecimal())


def _link_or_copy(source: str, destination: str) -> None:
    try:
        os.link(source, destination)  # the files of a model are never written again
    except OSError:
        shutil.copyfile(source, destination)


def _write_settings(generation: Path, settings: GenerationSettings) -> None:
    rows = settings.rows
    stored = {
        "image_encoder": rows.image_encoder,
        "text_encoder": settings.text_encoder,
        "bands": rows.choice.bands,
        "stretch": rows.choice.stretch,
        "widths": rows.widths,
    }
    storage.write_text(generation / SETTINGS, json.dumps(stored) + "\n")


def _point_to(folder: Path, number: int, images_root: Path) -> None:
    pointer = {"format": FORMAT, "generation": number, "images": str(images_root)}
    storage.write_text(folder / POINTER, json.dumps(pointer) + "\n")
