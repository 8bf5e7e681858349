"""An index of a folder of images, opened to be searched.

| in the folder              | what it is                                                      |
|----------------------------|-----------------------------------------------------------------|
| `index.json`               | where the images are, and which generation counts               |
| `generation_3/model/`      | the model, a folder as `--mode=export` writes it                |
| `generation_3/rows.json`   | the model's identity, how images were read, the rows' widths    |
| `generation_3/` and others | the rows, see `index_rows`                                      |

New images are appended to a generation. Where rows must go, another model is to answer queries, or
other rows are wanted for all images, another generation is written, which counts when it is whole.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from input_pipeline.errors import DataError
from input_pipeline.images import files as image_files
from input_pipeline.images import reader
from input_pipeline.images.bands import BandChoice
from kamcl_jax.errors import ExportError
from kamcl_jax.export import model_folder
from kamcl_jax.inference.model import TrainedModel
from kamcl_jax.search import index_rows
from kamcl_jax.search.index_rows import FileState

POINTER, SETTINGS, MODEL = "index.json", "rows.json", "model"
FORMAT = 2


@dataclasses.dataclass(frozen=True)
class RowSettings:
    """What the rows of a generation depend on.

    Attributes:
      image_encoder: its part of the model's identity.
      choice: how the images were read.
      embedding_width: E.
      num_concepts: C.
    """

    image_encoder: str
    choice: BandChoice
    embedding_width: int
    num_concepts: int

    @property
    def widths(self) -> tuple[int, int]:
        """(E, C)."""
        return self.embedding_width, self.num_concepts


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
    """What a generation depends on.

    Attributes:
      rows: what its rows do.
      text_encoder: its part of the model's identity; queries depend on it, and no row.
    """

    rows: RowSettings
    text_encoder: str


@dataclasses.dataclass(frozen=True, eq=False)
class ImageIndex:
    """An index, read-only.

    Indexing may go on meanwhile; what is open does not change. Only a model that has not been read
    by then may be gone with its generation, if another one has come to count.

    Attributes:
      folder: of the index.
      generation: the folder in it that holds the rows.
      images_root: absolute folder whose files are indexed.
      settings: of the generation.
      states: the N files as they were when they were read.
      embeddings: f32[N, E], unit vectors, mapped from the file.
      concepts: f16[N, C], mapped: probabilities of `model.concepts.words`.
    """

    folder: Path
    generation: Path
    images_root: Path
    settings: GenerationSettings
    states: Sequence[FileState]
    embeddings: np.ndarray
    concepts: np.ndarray

    @functools.cached_property
    def files(self) -> Sequence[str]:
        """N paths below `images_root`, with forward slashes."""
        return [state.name for state in self.states]

    @functools.cached_property
    def model(self) -> TrainedModel:
        """The model that embedded the images, read on first use.

        Raises:
          ExportError: its folder is damaged, or gone: see above.
        """
        return model_folder.read(self.generation / MODEL, untrusted=self.folder)

    @property
    def choice(self) -> BandChoice:
        """How the images were read."""
        return self.settings.rows.choice

    def path_of(self, row: int) -> Path:
        """Returns the file of a row.

        Raises:
          DataError: it is gone, or leads out of `images_root`.
        """
        name = self.files[row]
        (found,) = image_files.locate(self.images_root, [[name]])
        if isinstance(found, str):
            raise DataError(f"The image {self.images_root / name} cannot be read: {found}.")
        return found.path

    def read_image(self, row: int) -> Image.Image:
        """Returns the image of a row, as 8-bit RGB of its own size, as the model has seen it.

        Raises:
          DataError: it is gone, or cannot be read.
        """
        path = self.path_of(row)
        try:
            encoded = image_files.read_bytes(path)
            return reader.read_rgb(encoded, self.choice)
        except image_files.UnreadableImageError as error:
            raise DataError(f"The image {path} cannot be read: {error}.") from error


def open_index(folder: Path, *, with_model: bool = False) -> ImageIndex:
    """Opens an index.

    Args:
      folder: that `--mode=index` has written, also one that it has not finished.
      with_model: reads the model, too, so that indexing can't take it away any more.

    Raises:
      DataError: there is none, or it is damaged.
      ExportError: its model is damaged.
    """
    number, images_root = read_pointer(folder)
    generation = generation_of(folder, number)
    try:
        settings = read_settings(generation)
        rows = index_rows.read(generation, *settings.rows.widths)
        index = ImageIndex(folder, generation, images_root, settings, *rows)
        if with_model:
            _ = index.model
    except (DataError, ExportError):
        if read_pointer(folder)[0] == number:
            raise
        return open_index(folder, with_model=with_model)  # an indexing has ended meanwhile
    return index


def generation_of(folder: Path, number: int) -> Path:
    """Returns the folder of a generation, by its number from 1."""
    return folder / f"generation_{number}"


def read_pointer(folder: Path) -> tuple[int, Path]:
    """Returns the number of the generation that counts, and the folder of the images.

    Raises:
      DataError: there is no index, or it is damaged.
    """
    path = folder / POINTER
    if not path.is_file():
        raise DataError(f"{folder} is no index of images: --mode=index makes one.")
    pointer = _read_json(path)
    number, images = pointer.get("generation"), pointer.get("images")
    if pointer.get("format") != FORMAT or type(number) is not int or not isinstance(images, str):
        raise DataError(
            f"{path} is damaged, or was written by another version of this program: "
            "delete the index and make it anew."
        )
    return number, Path(images)


def read_settings(generation: Path) -> GenerationSettings:
    """Returns what a generation depends on.

    Raises:
      DataError: the file that says so is damaged.
    """
    path = generation / SETTINGS
    stored = _read_json(path)
    try:
        stretch = stored["stretch"]
        choice = BandChoice(
            bands=tuple(map(int, stored["bands"])),
            stretch=None if stretch is None else (float(stretch[0]), float(stretch[1])),
        )
        embedding_width, num_concepts = map(int, stored["widths"])
        encoder = str(stored["image_encoder"])
        rows = RowSettings(encoder, choice, embedding_width, num_concepts)
        return GenerationSettings(rows, str(stored["text_encoder"]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{path} is damaged: delete the index and make it anew.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DataError(f"{path} is damaged: delete the index and make it anew.")
    return value
