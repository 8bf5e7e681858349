"""Reads a folder in the layout of the KAMCL release (and of GaLR and AMFMN before it).

`SPLIT_caps.txt` has five lines an image, `SPLIT_filename.txt` one line an image or one a caption,
and a folder holds the image files. All of it is checked before anything is prepared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from input_pipeline.datasets.base import CaptionedImage, CaptionedImages
from input_pipeline.errors import DataError

CAPTIONS_AN_IMAGE = 5


def read_lines(path: Path) -> list[str]:
    """Reads a text file, each line without the white space around it.

    Raises:
      DataError: there is no such file, or it is not UTF-8 text.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            return [line.strip() for line in lines]
    except UnicodeDecodeError:
        raise DataError(f"The file {path} is not UTF-8 text.") from None
    except OSError as error:
        raise DataError(f"The file {path} can't be read: {error.strerror}.") from None


def _refuse_blank_lines(path: Path, lines: Sequence[str], what: str) -> None:
    for number, line in enumerate(lines, start=1):
        if not line:
            raise DataError(f"Line {number} of {path} is empty where {what} should be.")


def read_captions(path: Path, blank_captions: bool = False) -> list[str]:
    """Reads a caption file, one caption a line.

    Args:
      path: of the file.
      blank_captions: whether empty lines are captions too. A line of punctuation alone always
        is: RSICD has three.

    Raises:
      DataError: the file can't be read, has no line, or an empty one.
    """
    captions = read_lines(path)
    if not captions:
        raise DataError(f"The file {path} has no captions.")
    if not blank_captions:
        _refuse_blank_lines(path, captions, "a caption")
    return captions


def _one_name_an_image(path: Path, names: Sequence[str], captions: int, source: Path) -> list[str]:
    """Returns the names once an image, however the file lists them."""
    if captions == len(names) * CAPTIONS_AN_IMAGE:
        return list(names)
    if captions != len(names) or captions % CAPTIONS_AN_IMAGE:
        raise DataError(
            f"{source} has {captions} captions for the {len(names)} lines of {path}: there must be "
            f"{CAPTIONS_AN_IMAGE} captions an image, with one file name an image or a caption."
        )
    for index, name in enumerate(names):
        if name != names[index - index % CAPTIONS_AN_IMAGE]:
            raise DataError(
                f"Line {index + 1} of {path} names '{name}' within the five lines of another image."
            )
    return list(names[::CAPTIONS_AN_IMAGE])


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        raise DataError(f"{path} names '{name}', which lies outside of the image folder.")


def read_split(
    source_dir: Path, split: str, blank_captions: bool = False
) -> list[tuple[str, list[str]]]:
    """Reads the captions and file names of a split.

    Args:
      source_dir: the folder with the text files.
      split: 'train' or 'test', as in the files' names.
      blank_captions: as for `read_captions`.

    Returns:
      A file name and its five captions for each image, in the order of the files.

    Raises:
      DataError: a file is missing or malformed; the sentence says which, and where.
    """
    captions_path = source_dir / f"{split}_caps.txt"
    names_path = source_dir / f"{split}_filename.txt"
    captions = read_captions(captions_path, blank_captions)
    names = read_lines(names_path)
    _refuse_blank_lines(names_path, names, "a file name")
    names = _one_name_an_image(names_path, names, len(captions), captions_path)
    for name in names:
        _check_name(names_path, name)
    groups = (captions[i : i + CAPTIONS_AN_IMAGE] for i in range(0, len(captions), 5))
    return list(zip(names, groups, strict=True))


def check_images(folder: Path, names: Sequence[str]) -> list[bytes]:
    """Checks that every image is there, once.

    Args:
      folder: the image folder.
      names: the file names of all splits.

    Returns:
      One entry an image, `[name, bytes, modification time in ns]` as JSON, for the fingerprint.

    Raises:
      DataError: the folder or an image is missing, or a name occurs twice.
    """
    if not folder.is_dir():
        raise DataError(f"There is no image folder {folder}.")
    seen: set[str] = set()
    missing: list[str] = []
    entries: list[bytes] = []
    for name in names:
        if name in seen:
            raise DataError(f"The file name '{name}' is listed for two images.")
        seen.add(name)
        path = folder / name
        if path.is_file():
            status = path.stat()
            entries.append(json.dumps([name, status.st_size, status.st_mtime_ns]).encode())
        else:
            missing.append(name)
    if missing:
        more = f" and {len(missing) - 1} more images are" if len(missing) > 1 else " is"
        raise DataError(f"The image '{missing[0]}'{more} missing from {folder}.")
    return entries


class ReleaseLayout(CaptionedImages, skip_registration=True):  # type: ignore[call-arg]
    """Base of the builders that read the release's layout, with its train and test splits."""

    def __init__(
        self,
        *,
        source_dir: Path,
        prepared_dir: Path,
        images: str = "images",
        blank_captions: bool = False,
    ) -> None:
        self._folder = source_dir / images
        self._splits = {
            split: read_split(source_dir, split, blank_captions) for split in self.splits()
        }
        names = [name for images_of in self._splits.values() for name, _ in images_of]
        inputs = [json.dumps(self._splits).encode(), *check_images(self._folder, names)]
        super().__init__(prepared_dir, {}, inputs)

    def splits(self) -> list[str]:
        """Returns the names of the splits."""
        return ["train", "test"]

    def images_of(self, split: str) -> Iterator[CaptionedImage]:
        """Yields the images of a split; test ids go on where the training ids end."""
        first = 0 if split == "train" else len(self._splits["train"])
        for image_id, (name, captions) in enumerate(self._splits[split], start=first):
            yield CaptionedImage(self._folder / name, name, image_id, captions)
