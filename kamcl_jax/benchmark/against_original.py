"""The PyTorch original's own model, loss, optimiser, data loader and ranking, ready to be timed.

It runs where ours does: on the CPU with as many threads as there are cores, or on a GPU that both
frameworks see. PyTorch is optional, so it is imported inside of functions.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from kamcl_jax.benchmark.retrieval_speed import Encoded
from kamcl_jax.benchmark.subject import HostBatch
from kamcl_jax.benchmark.trials import Action
from kamcl_jax.config import data
from kamcl_jax.config import fields as config_check
from kamcl_jax.errors import ConfigError
from kamcl_jax.step import augmentation
from kamcl_jax.torch_release import checkout as torch_checkout
from kamcl_jax.torch_release.original import MARGIN

DROPOUT, LEARNING_RATE = 0.25, 2e-4
"""In the original's options."""

EPOCH = 11
"""One of those in which the concept alignment takes part."""

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
}
_RESIZED = 278


def check(config: ml_collections.ConfigDict) -> None:
    """Checks that the original can do what a config describes.

    Raises:
      ConfigError: fields that differ from what is fixed in the original; all of them are listed.
    """
    fields = {
        **config_check.flatten(config),
        "augmentation.resize": data.train_size(config),
    }
    fixed = {**_FIXED, "augmentation.resize": _RESIZED}
    differing = [
        f"config.{name} is {fields[name]!r}, not {value!r}"
        for name, value in fixed.items()
        if fields[name] != value
    ]
    if fields["queue_length"] % fields["batch_size"]:
        differing.append(
            f"config.queue_length {fields['queue_length']} is no multiple of config.batch_size "
            f"{fields['batch_size']}"
        )
    if differing:
        raise ConfigError(
            "the PyTorch original cannot run beside this config (configs/synthetic.py:full is of "
            f"its sizes): {'; '.join(differing)}"
        )


def check_concepts(num_concepts: int) -> None:
    """Checks what only the data tell.

    Raises:
      ConfigError: there are fewer concepts than the original's layers are wide.
    """
    if num_concepts != torch_checkout.NUM_CONCEPTS:
        raise ConfigError(
            f"the PyTorch original needs {torch_checkout.NUM_CONCEPTS} concepts and the data have "
            f"{num_concepts}: set config.data.pad_concepts=True"
        )


class Original:
    """The original's model in training and in evaluation.

    Attributes:
      stand_ins: third-party packages that could not be imported and were replaced.
      device: what it runs on, in words.
    """

    def __init__(self, checkout: Path, num_tokens: int, queue_length: int):
        """Builds the model with random weights.

        Args:
          checkout: folder of a clone of the original.
          num_tokens: rows of the word embedding, the padding included.
          queue_length: keys in each queue.

        Raises:
          TorchOriginalError: PyTorch or the checkout is missing, or its code fails.
        """
        torch_checkout.check(checkout)
        import torch

        self._on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
        torch.set_num_threads(os.cpu_count() or 1)
        program = torch_checkout.load_model(
            checkout, num_tokens - 1, queue_length, np.float32, DROPOUT, on_gpu=self._on_gpu
        )
        self.stand_ins = program.stand_ins
        self.device = torch.cuda.get_device_name() if self._on_gpu else "cpu"
        self._model = program.model.cuda() if self._on_gpu else program.model
        self._functions = program.modules["utils"]
        learned = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.Adam(learned, lr=LEARNING_RATE)

    def step(self, batch: HostBatch, images: np.ndarray) -> Action:
        """Returns what takes one step as the original's training loop does.

        Args:
          batch: of ours; the captions are padded to its longest, as the original pads them.
          images: f32[B, 256, 256, 3], normalised: the original augments in its data loader.
        """
        size = len(images)
        inputs = self._inputs(images, batch["tokens"], batch["lengths"], batch["word_concepts"])
        labels = self._tensor(batch["image_concepts"])
        ids = None  # an argument that the loss does not look at

        def run() -> None:
            with self._running():
                self._model.train()
                sims, *concepts_logits_and_targets = self._model(EPOCH, *inputs)
                image_concepts, text_concepts, *rest = concepts_logits_and_targets
                losses = self._functions.calcul_loss(
                    EPOCH, labels, sims, size, MARGIN, image_concepts, text_concepts, ids, *rest
                )
                self._optimizer.zero_grad()
                losses[0].backward()
                self._optimizer.step()

        return run

    def encode(self, of: Encoded) -> Action:
        """Returns what encodes a test split as the original's validation does.

        It takes pairs, so that an image is encoded once for each of its captions.

        Args:
          of: the split.
        """
        import torch

        batches = []
        for start in range(0, of.captions, of.batch_size):
            rows = slice(start, start + of.batch_size)
            pixels = np.asarray(augmentation.normalise(of.images[of.image_of_caption[rows]]))
            texts = (of.tokens[rows], of.lengths[rows], of.word_concepts[rows])
            batches.append(self._inputs(pixels, *texts))

        def run() -> list[np.ndarray]:
            with self._running(), torch.no_grad():
                self._model.eval()
                encoded = (self._model(EPOCH, *batch)[1:] for batch in batches)
                return [tensor.cpu().numpy() for pair in encoded for tensor in pair]

        return run

    def rank(self, scores: np.ndarray) -> Action:
        """Returns what ranks a score matrix f32[N, 5 N] both ways; the original keeps doubles."""
        scores = scores.astype(np.float64)
        i2t, t2i = self._functions.acc_i2t2, self._functions.acc_t2i2
        return lambda: (i2t(scores), t2i(scores))

    def _inputs(
        self, images: np.ndarray, tokens: np.ndarray, lengths: np.ndarray, word_concepts: np.ndarray
    ) -> tuple[Any, Any, Any]:
        return (
            self._tensor(images.transpose(0, 3, 1, 2)),
            self._tensor(tokens[:, : lengths.max()]).long(),
            self._tensor(word_concepts.astype(np.float32)),
        )

    def _tensor(self, array: np.ndarray) -> Any:
        import torch

        tensor = torch.from_numpy(np.array(array, order="C"))
        return tensor.cuda() if self._on_gpu else tensor

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        import torch

        with torch_checkout.surroundings(np.float32, on_gpu=self._on_gpu):
            yield
            if self._on_gpu:
                torch.cuda.synchronize()
