"""Runs the authors' PyTorch program out of a user's checkout, on the CPU.

PyTorch is optional, so it is imported inside of functions.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from kamcl_jax.errors import TorchOriginalError
from kamcl_jax.torch_release import checkout as torch_checkout
from kamcl_jax.torch_release.checkout import NUM_CONCEPTS, last_line, surroundings
from kamcl_jax.weights.torch_layout import StateDict

Batch = Mapping[str, np.ndarray]
"""image f32[B, 256, 256, 3], normalised; tokens i32[B, T], padded with 0 to the longest caption;
word_concepts f32[B, 512]; image_concepts f32[B, 512]. Other entries are ignored."""

IMAGE_SIZE = 256
"""Fixed in the original's layers."""

QUEUE_LENGTH = 8000
"""Keys in each of the original's two queues, where nothing else is asked for."""

MARGIN = 0.2
"""Of the triplet loss; the original's option files all say so."""

_STAGES = {
    "final": "visualmodelQ.extract_feature.gpo",
    "low": "visualmodelQ.low_module",
    "high": "visualmodelQ.high_module",
    "states": "textmodelQ.text_feature.seq2vec",
    "sentence": "textmodelQ.text_feature",
}
"""Stage -> the module of the original that returns it."""

_TOWERS = ("visualmodelQ", "visualmodelK", "textmodelQ", "textmodelK")


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

    def encode_stages(self, batch: Batch) -> dict[str, np.ndarray]:
        """Encodes a batch with the query towers in evaluation mode and keeps what is in between.

        Args:
          batch: see `Batch`; image_concepts may be absent.

        Returns:
          What `encode` returns; `final`, `low`, `high`: the levels of the image network, and
          `sentence`, f32[B, 512]; `states`: of the text's GRU, f32[B, T, 2400].

        Raises:
          TorchOriginalError: the batch is not of the original's sizes, or the original has no
            module of a stage.
        """
        kept: dict[str, Any] = {}
        with contextlib.ExitStack() as hooks:
            for stage, name in _STAGES.items():
                keep = functools.partial(_keep, kept, stage)
                hooks.callback(self._submodule(name).register_forward_hook(keep).remove)
            outputs = self.encode(batch)
        return {stage: _array(tensor) for stage, tensor in kept.items()} | outputs

    def pool_weights(self, length: int) -> np.ndarray:
        """Returns the weights by which the last pooling of the image network adds up its items.

        Args:
          length: number of items N.

        Returns:
          f32[N].
        """
        import torch

        pooling = self._submodule("visualmodelQ.gpo")
        with torch.no_grad(), surroundings(self._dtype):
            _, weights = pooling(torch.zeros(1, length, 1), torch.tensor([float(length)]))
        return _array(weights).reshape(length)

    def _submodule(self, name: str) -> Any:
        try:
            return self._model.get_submodule(name)
        except AttributeError:
            raise TorchOriginalError(f"the PyTorch original has no module {name}") from None

    def train_step(
        self,
        epoch: int,
        batch: Batch,
        learning_rate: float,
        epsilon: float,
        momentum_coverage: str = "release",
    ) -> dict[str, Any]:
        """Takes one step as the original's training loop does; `state_dict` has the new state.

        Args:
          epoch: from 0; the original's loss depends on it.
          batch: see `Batch`.
          learning_rate: of Adam, which goes on from the last step since `load`.
          epsilon: of Adam.
          momentum_coverage: `release`, for the momentum update as it is, which leaves most of the
            image key tower alone; `all`, for the same update of all of both key towers.

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
        with surroundings(self._dtype), self._momentum_over(momentum_coverage):
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

    @contextlib.contextmanager
    def _momentum_over(self, coverage: str) -> Iterator[None]:
        """Lets the original's momentum update reach what it leaves out, if `all` is asked for.

        The update walks through the parameters of the four towers side by side and stops where the
        shortest list of them ends. Here each list goes on, with numbers that belong to nothing, to
        the length of the longest, so that the original's own arithmetic updates all of them.
        """
        import torch

        with contextlib.ExitStack() as stack:
            if coverage == "all":
                towers = [self._submodule(name) for name in _TOWERS]
                longest = max(len([*tower.parameters()]) for tower in towers)
                for tower in towers:
                    own = [*tower.parameters()]
                    more = [torch.nn.Parameter(torch.zeros(())) for _ in range(longest - len(own))]
                    lengthened = functools.partial(itertools.chain, own, more)
                    # The attribute of this one object hides the method of its class.
                    stack.enter_context(mock.patch.object(tower, "parameters", lengthened))
            yield

    def _optimizer_with(self, learning_rate: float, epsilon: float) -> Any:
        import torch

        if self._optimizer is None:
            learned = [p for p in self._model.parameters() if p.requires_grad]
            self._optimizer = torch.optim.Adam(learned)
        for group in self._optimizer.param_groups:
            group |= {"lr": learning_rate, "eps": epsilon}
        return self._optimizer


def load_original(
    checkout: Path,
    vocabulary_size: int,
    queue_length: int = QUEUE_LENGTH,
    dtype: type = np.float32,
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


def _keep(kept: dict[str, Any], stage: str, _module: Any, _inputs: Any, output: Any) -> None:
    """Keeps what a module returns; a pooling returns its weights besides."""
    kept[stage] = output[0] if isinstance(output, tuple) else output


def _tensor(array: np.ndarray) -> Any:
    import torch

    # A copy: arrays may be read-only or transposed.
    return torch.from_numpy(np.array(array, order="C"))


def _array(tensor: Any) -> np.ndarray:
    # A copy: the next step writes into parameters where they are.
    return tensor.detach().cpu().numpy().copy()
