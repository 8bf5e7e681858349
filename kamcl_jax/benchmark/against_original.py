"""The PyTorch original's own model, loss, optimiser, data loader and ranking, ready to be timed.

The original runs where our program does: on the CPU with as many threads as there are cores, or on
a GPU that both frameworks see. PyTorch is optional, so it is imported inside of functions.
"""

import contextlib
import importlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import ml_collections
import numpy as np

from input_pipeline.datasets import Prepared
from input_pipeline.images.decoded import EncodedImage
from input_pipeline.language import tokens
from input_pipeline.splits.examples import RetrievalData
from kamcl_jax.benchmark.input_and_retrieval import SplitSample
from kamcl_jax.benchmark.subject import HostBatch
from kamcl_jax.benchmark.trials import Action
from kamcl_jax.config import fields
from kamcl_jax.config.data import train_size
from kamcl_jax.errors import ConfigError
from kamcl_jax.step import augmentation
from kamcl_jax.torch_release.checkout import (
    DATA_MODULES,
    NUM_CONCEPTS,
    check_checkout,
    load_modules,
    surroundings,
)
from kamcl_jax.torch_release.original import TorchOriginal

DROPOUT, LEARNING_RATE = 0.25, 2e-4  # what the original's option files say
EPOCH = 11  # the concept alignment takes part
IMAGES = 64  # the files that the original's loader reads over and over

_FIXED = {
    "image_size": 256,
    "embedding_size": 512,
    "num_concepts": 512,
    "dtype": "float32",
    "gradient_accumulation": 1,
    "image_encoder.depth": 18,
    "image_encoder.width": 64,
    "image_encoder.rematerialise": False,
    "text_encoder.word_width": 620,
    "text_encoder.hidden_width": 2400,
    "text_encoder.dropout": DROPOUT,
    "augmentation.max_rotation": 90.0,
    "loss.negatives": "queue",
    "augmentation.resize": 278,
}


def check_sizes(config: ml_collections.ConfigDict) -> None:
    """Refuses a config that the original cannot run, and lists all fields that differ."""
    ours = {**fields.flatten(config), "augmentation.resize": train_size(config)}
    differing = [
        f"config.{name} is {ours[name]!r}, not {value!r}"
        for name, value in _FIXED.items()
        if ours[name] != value
    ]
    if ours["queue_length"] % ours["batch_size"]:
        differing.append(
            f"config.queue_length {ours['queue_length']} is no multiple of config.batch_size "
            f"{ours['batch_size']}"
        )
    if differing:
        raise ConfigError(
            "the PyTorch original cannot run beside this config (configs/synthetic.py:full is of "
            f"its sizes): {'; '.join(differing)}"
        )


def check_num_concepts(num_concepts: int) -> None:
    """Refuses data with fewer concepts than the original's layers are wide."""
    if num_concepts != NUM_CONCEPTS:
        raise ConfigError(
            f"the PyTorch original needs {NUM_CONCEPTS} concepts and the data have "
            f"{num_concepts}: set config.data.pad_concepts=True"
        )


class TimedOriginal:
    """The original's model in training and in evaluation, with random weights.

    Attributes:
      stand_ins: Third-party packages that could not be imported and were replaced.
      device: The device that it runs on, in words.
    """

    def __init__(self, checkout: Path, num_tokens: int, queue_length: int):
        check_checkout(checkout)
        import torch

        self._on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
        torch.set_num_threads(os.cpu_count() or 1)
        self._original = TorchOriginal(
            checkout, num_tokens - 1, queue_length, np.float32, DROPOUT, on_gpu=self._on_gpu
        )
        self._original.start_adam(LEARNING_RATE)
        self.stand_ins = self._original.stand_ins
        self.device = torch.cuda.get_device_name() if self._on_gpu else "cpu"

    def step(self, batch: HostBatch, images: np.ndarray) -> Action:
        """Returns what takes one step as the original's training loop does.

        The images f32[B, 256, 256, 3] of our batch are augmented and normalised: the original does
        that in its data loader.
        """
        take = self.steps(batch, images)
        return lambda: take(1)

    def steps(self, batch: HostBatch, images: np.ndarray) -> Callable[[int], None]:
        """Returns what takes so many such steps, one after another, and waits for the last."""
        inputs = self._original.inputs({**batch, "image": images})
        labels = self._original.tensor(batch["image_concepts"])

        def run(count: int) -> None:
            for _ in range(count):
                self._original.take_step(EPOCH, inputs, labels)
            self._wait()

        return run

    def computing_in(self, precision: str) -> contextlib.AbstractContextManager[None]:
        """Lets the model compute in one of `original.PRECISIONS`."""
        return self._original.computing_in(precision)

    def encode(self, sample: SplitSample) -> Action:
        """Returns what encodes a part of a split as the original's validation does.

        It takes pairs, so that an image is encoded once for each of its captions.
        """
        import torch

        batches = []
        for start in range(0, sample.captions, sample.batch_size):
            rows = slice(start, start + sample.batch_size)
            images = sample.images[sample.image_of_caption[rows]]
            batch = {
                "image": np.asarray(augmentation.normalise(images)),
                "tokens": sample.tokens[rows],
                "lengths": sample.lengths[rows],
                "word_concepts": sample.word_concepts[rows],
            }
            batches.append(self._original.inputs(batch))

        def run() -> list[np.ndarray]:
            model = self._original.model.eval()
            with self._original.surroundings(), torch.no_grad():
                encoded = (model(EPOCH, *batch)[1:] for batch in batches)
                arrays = [tensor.cpu().numpy() for pair in encoded for tensor in pair]
            self._wait()
            return arrays

        return run

    def rank(self, scores: np.ndarray) -> Action:
        """Returns what ranks a score matrix f32[N, 5 N] both ways; the original keeps doubles."""
        scores = scores.astype(np.float64)
        i2t, t2i = self._original.functions.acc_i2t2, self._original.functions.acc_t2i2
        return lambda: (i2t(scores), t2i(scores))

    def _wait(self) -> None:
        import torch

        if self._on_gpu:
            torch.cuda.synchronize()


class TimedOriginalInput:
    """The original's data set, transforms, collation and `DataLoader`; a trial reads `images`."""

    def __init__(
        self, checkout: Path, folder: Path, prepared: Prepared, data: RetrievalData, batch_size: int
    ):
        """Writes the training split into an empty folder as the original reads it."""
        modules = load_modules(checkout, DATA_MODULES)
        files = itertools.islice(_training_files(prepared, data), IMAGES)
        options = _write_files(folder, files, data)
        vocabulary = modules["vocab"].Vocabulary()
        for word in (*data.vocabulary.words, "<unk>"):
            vocabulary.add_word(word)
        with surroundings(np.float32):
            self._loader = modules["data"].get_precomp_loader(
                "train", vocabulary, batch_size, True, True, 0, opt={"dataset": options}
            )
        self.images = len(self._loader) * batch_size

    def read(self) -> None:
        """Reads an epoch of the files' captions: each brings its image anew."""
        with surroundings(np.float32), _word_tokenizer():
            for _ in self._loader:
                pass


def _training_files(prepared: Prepared, data: RetrievalData) -> Iterator[tuple[int, EncodedImage]]:
    row_of = {name: row for row, name in enumerate(data.train.file_names)}
    for number in range(prepared.num_images):
        file = prepared.encoded_image(number)
        if file.file_name in row_of:
            yield row_of[file.file_name], file


def _write_files(
    folder: Path, files: Iterable[tuple[int, EncodedImage]], data: RetrievalData
) -> dict[str, str]:
    """Writes the images and the original's lists; returns what its options call `dataset`."""
    train, concepts = data.train, data.concepts.words
    captions: list[str] = []
    names: list[str] = []
    labels: list[str] = []
    for row, file in files:
        name = f"{row}{Path(file.file_name).suffix}"
        (folder / name).write_bytes(file.encoded)
        shares = train.image_concepts[row]
        marks = " ".join(f"{concepts[n]}:{shares[n]}" for n in np.flatnonzero(shares))
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
