"""Runs the authors' PyTorch program out of a user's checkout, on the CPU.

PyTorch is optional, so it is imported inside of functions.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kamcl_jax.parity import torch_checkout
from kamcl_jax.parity.torch_checkout import (
    NUM_CONCEPTS,
    TorchOriginalError,
    last_line,
    surroundings,
)
from kamcl_jax.pretrained.torch_layout import StateDict

Batch = Mapping[str, np.ndarray]
"""image f32[B, 256, 256, 3], normalised; tokens i32[B, T], padded with 0 to the longest caption;
word_concepts f32[B, 512]; image_concepts f32[B, 512]. Other entries are ignored."""

IMAGE_SIZE = 256
"""Fixed in the original's layers."""

MARGIN = 0.2
"""Of the triplet loss; the original's option files all say so."""


class TorchOriginal:
    """The original's model with its loss and an optimiser.

    Attributes:
      stand_ins: third-party packages that could not be imported and were replaced by
        `torch_stand_ins`.
    """

    def __init__(
        self, model: Any, loss: Callable[..., Any], stand_ins: tuple[str, ...], dtype: type
    ):
        """Takes what `load_original` has built: the `BaseModel` and `utils.calcul_loss`."""
        self.stand_ins = stand_ins
        self._dtype = dtype
        self._model = model
        self._loss = loss
        self._optimizer: Any = None

    def load(self, state_dict: Mapping[str, np.ndarray]) -> None:
        """Overwrites the whole state; the optimiser starts afresh.

        Raises:
          TorchOriginalError: a tensor is missing, unknown or of another shape.
        """
        tensors = {name: _tensor(value) for name, value in state_dict.items()}
        try:
            self._model.load_state_dict(tensors, strict=True)
        except RuntimeError as error:
            raise TorchOriginalError(
                f"the state does not fit the PyTorch original: {last_line(error)}"
            ) from None
        self._optimizer = None

    def state_dict(self) -> StateDict:
        """Returns a copy of the whole state under the original's names and in its order."""
        return {name: _array(tensor) for name, tensor in self._model.state_dict().items()}

    def encode(self, batch: Batch) -> dict[str, np.ndarray]:
        """Encodes a batch with the query towers in evaluation mode.

        Args:
          batch: see `Batch`; image_concepts may be absent.

        Returns:
          `visual`, `text`: hybrid embeddings f32[B, 512]; `visual_concept`, `text_concept`:
          f32[B, 512]; `sims`: cosines f32[B, B] of image i and caption j.

        Raises:
          TorchOriginalError: the batch is not of the original's sizes.
        """
        import torch

        inputs = _inputs(batch, self._dtype)
        self._model.eval()
        with torch.no_grad(), surroundings(self._dtype):
            visual, visual_concept = self._model.visualmodelQ(inputs[0])
            text, text_concept = self._model.textmodelQ(*inputs[1:])
            sims = self._model(0, *inputs)[0]
        outputs = {
            "visual": visual,
            "visual_concept": visual_concept,
            "text": text,
            "text_concept": text_concept,
            "sims": sims,
        }
        return {name: _array(tensor) for name, tensor in outputs.items()}

    def train_step(
        self, epoch: int, batch: Batch, learning_rate: float, epsilon: float
    ) -> dict[str, Any]:
        """Takes one step as the original's training loop does; `state_dict` has the new state.

        Args:
          epoch: from 0; the original's loss depends on it.
          batch: see `Batch`.
          learning_rate: of Adam, which goes on from the last step since `load`.
          epsilon: of Adam.

        Returns:
          `losses`: f32[4], the total, then triplet, InfoNCE and concept loss with their weights;
          `gradients`: name -> f32 array, of the parameters that got one; of the step's forward
          pass `logits_image`, `logits_text`: f32[B, 1 + K], and `sims`: f32[B, B].

        Raises:
          TorchOriginalError: the batch is not of the original's sizes, or does not divide its
            queues.
        """
        inputs = _inputs(batch, self._dtype)
        labels = _tensor(batch["image_concepts"].astype(self._dtype))
        size = len(labels)
        if self._model.K % size:
            raise TorchOriginalError(
                f"the PyTorch original's queues of {self._model.K} keys take no batches of {size}"
            )
        optimizer = self._optimizer_with(learning_rate, epsilon)
        self._model.train()
        with surroundings(self._dtype):
            sims, image_concept, text_concept, *logits_and_targets = self._model(epoch, *inputs)
            no_ids = None  # an argument that the loss does not look at
            losses = self._loss(
                epoch,
                labels,
                sims,
                size,
                MARGIN,
                image_concept,
                text_concept,
                no_ids,
                *logits_and_targets,
            )
        optimizer.zero_grad()
        losses[0].backward()
        optimizer.step()
        return {
            "losses": np.array([_array(loss) for loss in losses]),
            "gradients": {
                name: _array(parameter.grad)
                for name, parameter in self._model.named_parameters()
                if parameter.grad is not None
            },
            "logits_image": _array(logits_and_targets[0]),
            "logits_text": _array(logits_and_targets[1]),
            "sims": _array(sims),
        }

    def _optimizer_with(self, learning_rate: float, epsilon: float) -> Any:
        import torch

        if self._optimizer is None:
            learned = [p for p in self._model.parameters() if p.requires_grad]
            self._optimizer = torch.optim.Adam(learned)
        for group in self._optimizer.param_groups:
            group |= {"lr": learning_rate, "eps": epsilon}
        return self._optimizer


def load_original(
    checkout: Path, vocabulary_size: int, queue_length: int = 8000, dtype: type = np.float32
) -> TorchOriginal:
    """Builds the original's model on the CPU, without dropout, with random weights.

    Args:
      checkout: folder of a clone of github.com/mcx-mcx/KAMCL.
      vocabulary_size: words; the embedding has one row more.
      queue_length: keys in each of the two queues.
      dtype: `numpy.float32` or `numpy.float64`, of the weights and of all arithmetic.

    Raises:
      TorchOriginalError: the folder is no such checkout, PyTorch is missing, or the checkout's
        code fails.
    """
    program = torch_checkout.load_model(checkout, vocabulary_size, queue_length, dtype)
    loss = program.modules["utils"].calcul_loss
    return TorchOriginal(program.model, loss, program.stand_ins, dtype)


def _inputs(batch: Batch, dtype: type) -> tuple[Any, Any, Any]:
    """Returns images f32[B, 3, 256, 256], tokens i64[B, T] and word concepts f32[B, 512]."""
    image, word_concepts = batch["image"], batch["word_concepts"]
    if image.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 3) or word_concepts.shape[1:] != (NUM_CONCEPTS,):
        raise TorchOriginalError(
            f"the PyTorch original takes images of {IMAGE_SIZE}x{IMAGE_SIZE} pixels and "
            f"{NUM_CONCEPTS} concepts, not {image.shape[1]}x{image.shape[2]} and "
            f"{word_concepts.shape[1]}"
        )
    return (
        _tensor(image.transpose(0, 3, 1, 2).astype(dtype)),
        _tensor(batch["tokens"]).long(),
        _tensor(word_concepts.astype(dtype)),
    )


def _tensor(array: np.ndarray) -> Any:
    import torch

    # A copy: arrays may be read-only or transposed.
    return torch.from_numpy(np.array(array, order="C"))


def _array(tensor: Any) -> np.ndarray:
    # A copy: the next step writes into parameters where they are.
    return tensor.detach().cpu().numpy().copy()
