"""The PyTorch original's data loader on image files that hold a training split's images."""

import contextlib
import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from input_pipeline.datasets import Prepared
from input_pipeline.images.decoded import EncodedImage
from input_pipeline.language import tokens
from input_pipeline.splits.examples import RetrievalData
from kamcl_jax.torch_release import checkout as torch_checkout

IMAGES = 64
"""Files that its loader reads over and over."""


class OriginalInput:
    """The original's own data set, transforms, collation and `DataLoader`, in one process.

    Attributes:
      images: that a trial reads.
    """

    def __init__(
        self, checkout: Path, folder: Path, prepared: Prepared, data: RetrievalData, batch_size: int
    ):
        """Writes the files and builds the loader.

        Args:
          checkout: folder of a clone of the original.
          folder: empty; gets the image files as the data set has them, and the original's lists.
          prepared: the data set, with its image files.
          data: of the config.
          batch_size: of the training.

        Raises:
          TorchOriginalError: PyTorch, torchvision or the checkout is missing, or its code fails.
        """
        modules = torch_checkout.load_modules(checkout, torch_checkout.DATA_MODULES)
        files = training_files(prepared, data, IMAGES)
        options = write_files(folder, files, data)
        vocabulary = modules["vocab"].Vocabulary()
        for word in (*data.vocabulary.words, "<unk>"):
            vocabulary.add_word(word)
        with torch_checkout.surroundings(np.float32):
            self._loader = modules["data"].get_precomp_loader(
                "train", vocabulary, batch_size, True, True, 0, opt={"dataset": options}
            )
        self.images = len(self._loader) * batch_size

    def read(self) -> None:
        """Reads an epoch of the files' captions: each brings its image anew."""
        with torch_checkout.surroundings(np.float32), _word_tokenizer():
            for _ in self._loader:
                pass


def training_files(
    prepared: Prepared, data: RetrievalData, images: int
) -> list[tuple[int, EncodedImage]]:
    """Returns image files of a training split with their rows there.

    Args:
      prepared: the data set.
      data: made of it.
      images: files, at most.
    """
    row_of = {name: row for row, name in enumerate(data.train.file_names)}
    found: list[tuple[int, EncodedImage]] = []
    for number in range(prepared.num_images):
        file = prepared.encoded_image(number)
        if file.file_name in row_of:
            found.append((row_of[file.file_name], file))
        if len(found) == images:
            break
    return found


def write_files(
    folder: Path, files: Sequence[tuple[int, EncodedImage]], data: RetrievalData
) -> dict[str, str]:
    """Writes image files and the lists that the original reads of a training split.

    Args:
      folder: to write to.
      files: from `training_files`.
      data: has the captions, the concepts and the labels.

    Returns:
      What the original's options call `dataset`.
    """
    train, concepts = data.train, data.concepts.words
    captions: list[str] = []
    names: list[str] = []
    labels: list[str] = []
    for row, file in files:
        name = f"{row}{Path(file.file_name).suffix}"
        (folder / name).write_bytes(file.encoded)
        marks = " ".join(
            f"{concepts[concept]}:{train.image_concepts[row, concept]}"
            for concept in np.flatnonzero(train.image_concepts[row])
        )
        for caption in np.flatnonzero(train.image_of_caption == row):
            captions.append(train.captions[int(caption)])
            names.append(name)
            labels.append(f"{len(labels)}\t{marks}")
    for file_name, lines in (
        ("train_caps_verify.txt", captions),
        ("train_filename_verify.txt", names),
        ("tags.txt", labels),
    ):
        (folder / file_name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    (folder / "tag_vocab.json").write_text(json.dumps(list(concepts)), "utf-8")
    return {
        "data_path": f"{folder}/",
        "image_path": f"{folder}/",
        "tag_path": str(folder / "tags.txt"),
        "tag_vocab": str(folder / "tag_vocab.json"),
    }


@contextlib.contextmanager
def _word_tokenizer() -> Iterator[None]:
    """Puts our tokeniser in the place of NLTK's where NLTK's data are not installed."""
    tokenize: Any = importlib.import_module("nltk.tokenize")
    try:
        tokenize.word_tokenize("two boats .")
    except LookupError:
        with mock.patch.object(tokenize, "word_tokenize", tokens.tokenize):
            yield
    else:
        yield
