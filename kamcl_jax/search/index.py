"""An index of a folder of images: their embeddings, and the model that made them.

| in the folder                 | what it is                                                      |
|-------------------------------|-----------------------------------------------------------------|
| `index.json`                  | where the images are, and which generation is the current one   |
| `generation_3/model/`         | the model, a folder as `--mode=export` writes it                |
| `generation_3/rows.json`      | what the rows depend on, and their widths                       |
| `generation_3/embeddings.f32` | little-endian f32[N, E], unit vectors                           |
| `generation_3/concepts.f16`   | little-endian f16[N, C], probabilities of concepts              |
| `generation_3/files.jsonl`    | a line a row, `["a/b.tif", bytes, ns]`: the file as it was read |

New images are appended to the current generation. A row exists once its line is whole; by then its
embedding and its concepts are on the disk. Where rows must go, or another model or other rows are
wanted, a new generation is written, which becomes the current one when it is whole.
"""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from input_pipeline.errors import DataError
from input_pipeline.images import files as image_files
from input_pipeline.images import reader
from input_pipeline.images.bands import BandChoice
from kamcl_jax.errors import KamclError
from kamcl_jax.export import model_folder
from kamcl_jax.inference.model import TrainedModel

POINTER, SETTINGS, MODEL = "index.json", "rows.json", "model"
FILES, EMBEDDINGS, CONCEPTS = "files.jsonl", "embeddings.f32", "concepts.f16"
FORMAT = 2


class FileState(NamedTuple):
    """An image file as it was when it was read.

    Attributes:
      name: Its path below the folder of images, with forward slashes.
      num_bytes: Its size.
      modified_ns: When it was last modified, in ns.
    """

    name: str
    num_bytes: int
    modified_ns: int


@dataclasses.dataclass(frozen=True)
class IndexSettings:
    """What a generation depends on.

    Attributes:
      image_encoder: The identity of the image encoder.
      text_encoder: The identity of the text encoder; queries depend on it, but no row does.
      choice: How the images are read.
      widths: (E, C), the widths of the embeddings and of the concepts.
    """

    image_encoder: str
    text_encoder: str
    choice: BandChoice
    widths: tuple[int, int]

    def has_same_rows(self, other: "IndexSettings") -> bool:
        """Returns whether the same images have the same rows under both settings."""
        return dataclasses.replace(self, text_encoder=other.text_encoder) == other


class IndexRows(NamedTuple):
    """The files of N images, and their rows f32[N, E] and f16[N, C], mapped from the disk."""

    states: Sequence[FileState]
    embeddings: np.ndarray
    concepts: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ImageIndex:
    """An open index, read-only.

    It stays as it is while an indexing goes on. Only its model, if it has not been read by then,
    may be gone once a new generation has become the current one.

    Attributes:
      folder: The folder of the index.
      generation: The folder in it that holds the rows.
      images_root: The absolute folder whose files are indexed.
      settings: What the generation depends on.
      states: The N files as they were when they were read.
      embeddings: f32[N, E], unit vectors, mapped from the file.
      concepts: f16[N, C], mapped: the probabilities of `model.concepts.words`.
    """

    folder: Path
    generation: Path
    images_root: Path
    settings: IndexSettings
    states: Sequence[FileState]
    embeddings: np.ndarray
    concepts: np.ndarray

    @functools.cached_property
    def files(self) -> Sequence[str]:
        """The paths of the N files below `images_root`, with forward slashes."""
        return [state.name for state in self.states]

    @functools.cached_property
    def model(self) -> TrainedModel:
        """The model that embedded the images; it is read on first use."""
        return model_folder.read(self.generation / MODEL, untrusted=self.folder)

    def path_of(self, row: int) -> Path:
        """Returns the file of a row.

        Raises:
          DataError: It is gone, or leads out of `images_root`.
        """
        name = self.files[row]
        (found,) = image_files.locate(self.images_root, [[name]])
        if isinstance(found, str):
            raise DataError(f"The image {self.images_root / name} cannot be read: {found}.")
        return found.path

    def read_image(self, row: int) -> Image.Image:
        """Returns the image of a row as the model saw it, as 8-bit RGB of its own size."""
        return self.read_file(self.path_of(row))

    def read_file(self, path: Path) -> Image.Image:
        """Returns the image in any file, read as those of the index are."""
        try:
            return reader.read_rgb(image_files.read_bytes(path), self.settings.choice)
        except image_files.UnreadableImageError as error:
            raise DataError(f"The image {path} cannot be read: {error}.") from error


def open_index(folder: Path, *, with_model: bool = False) -> ImageIndex:
    """Opens an index that `--mode=index` has written, even if it has not finished.

    `with_model` reads the model now, so that an indexing cannot take it away any more.
    """
    number, images_root = read_pointer(folder)
    try:
        index = _open(folder, number, images_root)
        if with_model:
            _ = index.model
    except KamclError:
        if read_pointer(folder)[0] == number:
            raise
        return open_index(folder, with_model=with_model)  # an indexing has ended meanwhile
    return index


def _open(folder: Path, number: int, images_root: Path) -> ImageIndex:
    generation = generation_of(folder, number)
    settings = read_settings(generation)
    rows = read_rows(generation, settings.widths)
    return ImageIndex(folder, generation, images_root, settings, *rows)


@contextlib.contextmanager
def _damage_told(generation: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The index {generation.parent} cannot be read ({error}): if one of its files is "
            "damaged, delete the folder and make it anew."
        ) from error


def read_pointer(folder: Path) -> tuple[int, Path]:
    """Returns the number of the current generation, and the folder of the images."""
    path = folder / POINTER
    if not path.is_file():
        raise DataError(f"{folder} is no index of images: --mode=index makes one.")
    try:
        pointer = json.loads(path.read_bytes())
        if pointer["format"] != FORMAT:
            raise ValueError("another format")
        return int(pointer["generation"]), Path(pointer["images"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is damaged, or was written by another version of this program: delete the "
            "index and make it anew."
        ) from error


def generation_of(folder: Path, number: int) -> Path:
    """Returns the folder of a generation by its number, from 1."""
    return folder / f"generation_{number}"


def settings_as_json(settings: IndexSettings) -> str:
    """Returns what `read_settings` reads."""
    stored = dataclasses.asdict(settings)
    stored |= stored.pop("choice")
    return json.dumps(stored) + "\n"


def read_settings(generation: Path) -> IndexSettings:
    """Returns what a generation depends on."""
    with _damage_told(generation):
        stored = json.loads((generation / SETTINGS).read_bytes())
        stretch, (embedding_width, num_concepts) = stored["stretch"], stored["widths"]
        return IndexSettings(
            image_encoder=stored["image_encoder"],
            text_encoder=stored["text_encoder"],
            choice=BandChoice(tuple(stored["bands"]), None if stretch is None else tuple(stretch)),
            widths=(embedding_width, num_concepts),
        )


def read_rows(generation: Path, widths: tuple[int, int]) -> IndexRows:
    """Opens the rows that are whole; `widths` are (E, C)."""
    with _damage_told(generation):
        lines = _whole_lines(generation).splitlines()
        # Parsing all lines at once takes a third of the time.
        states = [FileState(*state) for state in json.loads(b"[" + b",".join(lines) + b"]")]
        embeddings = _mapped(generation / EMBEDDINGS, "<f4", (len(states), widths[0]))
        concepts = _mapped(generation / CONCEPTS, "<f2", (len(states), widths[1]))
        return IndexRows(states, embeddings, concepts)


def _whole_lines(generation: Path) -> bytes:
    written = (generation / FILES).read_bytes()
    return written[: written.rfind(b"\n") + 1]


def _mapped(path: Path, dtype: str, shape: tuple[int, int]) -> np.ndarray:
    if 0 in shape:
        return np.zeros(shape, dtype)  # an empty file cannot be mapped
    return np.memmap(path, dtype, mode="r", shape=shape)


Append = Callable[[Sequence[FileState], np.ndarray, np.ndarray], None]
"""Writes R rows to the disk: the states of their files, embeddings [R, E] and concepts [R, C]."""


@contextlib.contextmanager
def row_writer(generation: Path, widths: tuple[int, int]) -> Iterator[Append]:
    """Gives a function that appends rows of the widths (E, C) to a generation.

    The three files are made if they are absent. What an interrupted writer has left beyond the last
    whole row is cut off.
    """
    with (
        (generation / EMBEDDINGS).open("ab") as embeddings_file,
        (generation / CONCEPTS).open("ab") as concepts_file,
        (generation / FILES).open("ab") as lines_file,
    ):
        rows = read_rows(generation, widths)
        embeddings_file.truncate(rows.embeddings.nbytes)
        concepts_file.truncate(rows.concepts.nbytes)
        lines_file.truncate(len(_whole_lines(generation)))

        def append(
            states: Sequence[FileState], embeddings: np.ndarray, concepts: np.ndarray
        ) -> None:
            # JSON's escapes keep names that are not UTF-8, too.
            lines = "".join(f"{json.dumps(list(state))}\n" for state in states)
            _write(embeddings_file, embeddings.astype("<f4").tobytes())
            _write(concepts_file, concepts.astype("<f2").tobytes())
            _write(lines_file, lines.encode())

        yield append


def _write(file: IO[bytes], content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def printable(text: str) -> str:
    """Returns a name or a sentence on one line; a sign stands for each letter that none shows."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
