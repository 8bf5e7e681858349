"""Runs the authors' PyTorch program out of your checkout.

PyTorch is optional, so it is imported inside of functions.
"""

import contextlib
import functools
import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from kamcl_jax.errors import TorchOriginalError
from kamcl_jax.torch_release.checkout import last_line, load_model, surroundings
from kamcl_jax.torch_release.golden_file import GoldenRun, Quantities
from kamcl_jax.torch_release.quantities import LOSSES, OUTPUTS, HostBatch
from kamcl_jax.weights.torch_layout import StateDict

QUEUE_LENGTH = 8000
"""The number of keys in each of the original's two queues, where nothing else is asked for."""

MARGIN = 0.2
"""The margin of the triplet loss in all of the original's option files."""

PRECISIONS = ("float32", "TF32", "bfloat16")
"""What the original can compute in: "float32" as PyTorch comes, which on a GPU convolves in TF32;
"TF32" also for matrix products; "bfloat16" where PyTorch's autocast takes it."""

_STAGES = {
    "final": "visualmodelQ.extract_feature.gpo",
    "low": "visualmodelQ.low_module",
    "high": "visualmodelQ.high_module",
    "states": "textmodelQ.text_feature.seq2vec",
    "sentence": "textmodelQ.text_feature",
}
"""Stage -> the module of the original that returns it."""


class TorchOriginal:
    """The original's model with its loss and Adam; see `quantities.Program`.

    Attributes:
      model: The original's `BaseModel`.
      functions: The original's module `utils`.
      stand_ins: Third-party packages that could not be imported and were replaced by `stand_ins`.
    """

    def __init__(
        self,
        checkout: Path,
        vocabulary_size: int,
        queue_length: int = QUEUE_LENGTH,
        dtype: type = np.float32,
        dropout: float = 0.0,
        *,
        on_gpu: bool = False,
    ):
        """Builds the model with random weights out of a clone of github.com/mcx-mcx/KAMCL.

        Args:
          checkout: The folder of the clone.
          vocabulary_size: The number of words; the embedding has one row more.
          queue_length: The number of keys in each of the two queues.
          dtype: `numpy.float32` or `numpy.float64`, of the weights and of all arithmetic.
          dropout: The dropout of the text encoder; it is 0.25 in the original's options.
          on_gpu: Whether `.cuda()` does what it says.
        """
        model, self.functions, self.stand_ins = load_model(
            checkout, vocabulary_size, queue_length, dtype, dropout, on_gpu
        )
        self.model = model.cuda() if on_gpu else model
        self._dtype = dtype
        self._on_gpu = on_gpu

    def surroundings(self) -> contextlib.AbstractContextManager[None]:
        """Puts in place what the original's code needs while it runs."""
        return surroundings(self._dtype, on_gpu=self._on_gpu)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the names and shapes of the state_dict, in its order."""
        return {name: tuple(tensor.shape) for name, tensor in self.model.state_dict().items()}

    def load(self, state_dict: Mapping[str, np.ndarray], run: GoldenRun) -> None:
        """Overwrites the whole state; Adam starts afresh, with the numbers of the run."""
        tensors = {name: self.tensor(value) for name, value in state_dict.items()}
        try:
            self.model.load_state_dict(tensors, strict=True)
        except RuntimeError as error:
            raise TorchOriginalError(
                f"the state does not fit the PyTorch original: {last_line(error)}"
            ) from None
        self.start_adam(run.learning_rate, eps=run.epsilon)

    def start_adam(self, learning_rate: float, **options: float) -> None:
        """Lets Adam start afresh."""
        import torch

        learned = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.Adam(learned, lr=learning_rate, **options)

    def state_dict(self) -> StateDict:
        """Returns a copy of the whole state under the original's names and in its order."""
        return {name: _array(tensor) for name, tensor in self.model.state_dict().items()}

    def encode_stages(self, batch: HostBatch) -> Quantities:
        """Encodes a batch in evaluation mode; see `quantities.Program`."""
        import torch

        inputs = self.inputs(batch)
        kept: dict[str, Any] = {}
        self.model.eval()
        with contextlib.ExitStack() as stack:
            for stage, name in _STAGES.items():
                keep = functools.partial(_keep, kept, stage)
                stack.callback(self.model.get_submodule(name).register_forward_hook(keep).remove)
            stack.enter_context(torch.no_grad())
            stack.enter_context(self.surroundings())
            image, text = self.model.visualmodelQ(inputs[0]), self.model.textmodelQ(*inputs[1:])
            sims = self.model(0, *inputs)[0]
        outputs = dict(zip(OUTPUTS, (*image, *text, sims), strict=True))
        return {name: _array(tensor) for name, tensor in {**kept, **outputs}.items()}

    def pool_weights(self, lengths: tuple[int, ...]) -> list[np.ndarray]:
        """Returns the image network's last pooling weights for each of these numbers of items."""
        import torch

        pooling, found = self.model.visualmodelQ.gpo, []
        with torch.no_grad(), self.surroundings():
            for length in lengths:
                _, weights = pooling(torch.zeros(1, length, 1), torch.tensor([float(length)]))
                found.append(_array(weights).reshape(length))
        return found

    def train_step(
        self, epoch: int, batch: HostBatch, momentum_coverage: str = "release"
    ) -> dict[str, Any]:
        """Takes one step as the original's training loop does; see `quantities.Program`.

        With `momentum_coverage="release"` the momentum update is as it is, which leaves most of the
        image key tower alone; with "all" the same update takes all of both key towers.
        """
        labels = self.tensor(batch["image_concepts"].astype(self._dtype))
        with self._momentum_over(momentum_coverage):
            losses, outputs = self.take_step(epoch, self.inputs(batch), labels)
        gradients = {name: p.grad for name, p in self.model.named_parameters()}
        return {
            "losses": dict(zip(LOSSES, map(_array, losses), strict=True)),
            "gradients": {n: _array(g) for n, g in gradients.items() if g is not None},
            "logits_image": _array(outputs[3]),
            "logits_text": _array(outputs[4]),
            "sims": _array(outputs[0]),
        }

    def take_step(self, epoch: int, inputs: Any, labels: Any) -> tuple[Any, Any]:
        """Takes one step on PyTorch's tensors, and returns the losses and the model's outputs.

        The inputs come from `inputs`, and the labels are the images' concepts, f32[B, 512].
        """
        self.model.train()
        with self.surroundings():
            outputs = self.model(epoch, *inputs)
            sims, image_concepts, text_concepts, *rest = outputs
            concepts, ids = (image_concepts, text_concepts), None  # the loss does not look at ids
            losses = self.functions.calcul_loss(
                epoch, labels, sims, len(labels), MARGIN, *concepts, ids, *rest
            )
            self._optimizer.zero_grad()
            losses[0].backward()
            self._optimizer.step()
        return losses, outputs

    def adjust_learning_rate(self, epoch: int, decay_factor: float, every_epochs: int) -> None:
        """Does what the original does before an epoch, counted from 0."""
        options = {"optim": {"lr_update_epoch": every_epochs, "lr_decay_param": decay_factor}}
        with contextlib.redirect_stdout(io.StringIO()):
            self.functions.adjust_learning_rate(options, self._optimizer, epoch)

    @contextlib.contextmanager
    def computing_in(self, precision: str) -> Iterator[None]:
        """Lets the model compute in one of `PRECISIONS`; its outputs and losses stay float32."""
        import torch

        products = torch.get_float32_matmul_precision()
        with contextlib.ExitStack() as stack:
            if precision == "TF32":
                torch.set_float32_matmul_precision("high")
                stack.callback(torch.set_float32_matmul_precision, products)
            if precision == "bfloat16":
                # Not the losses: autocast refuses PyTorch's binary cross entropy.
                forward = functools.partial(_autocast, self.model.forward, self._on_gpu)
                stack.enter_context(mock.patch.object(self.model, "forward", forward))
            yield

    def inputs(self, batch: HostBatch) -> tuple[Any, Any, Any]:
        """Returns images f32[B, 3, 256, 256], tokens i64[B, T] and word concepts f32[B, 512].

        Captions are padded to the longest, as the original pads them.
        """
        return (
            self.tensor(batch["image"].transpose(0, 3, 1, 2).astype(self._dtype)),
            self.tensor(batch["tokens"][:, : batch["lengths"].max()]).long(),
            self.tensor(batch["word_concepts"].astype(self._dtype)),
        )

    def tensor(self, array: np.ndarray) -> Any:
        """Returns an array as a tensor where the model is."""
        import torch

        # A copy: arrays may be read-only or transposed.
        tensor = torch.from_numpy(np.array(array, order="C"))
        return tensor.cuda() if self._on_gpu else tensor

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
                m = self.model
                towers = (m.visualmodelQ, m.visualmodelK, m.textmodelQ, m.textmodelK)
                parameters = [[*tower.parameters()] for tower in towers]
                longest = max(map(len, parameters))
                for tower, own in zip(towers, parameters, strict=True):
                    more = [torch.nn.Parameter(torch.zeros(())) for _ in range(longest - len(own))]
                    lengthened = functools.partial(itertools.chain, own, more)
                    # The attribute of this one object hides the method of its class.
                    stack.enter_context(mock.patch.object(tower, "parameters", lengthened))
            yield


def _autocast(forward: Callable[..., Any], on_gpu: bool, *inputs: Any) -> tuple[Any, ...]:
    import torch

    with torch.autocast("cuda" if on_gpu else "cpu", dtype=torch.bfloat16):
        outputs = forward(*inputs)
    return tuple(x.float() if x.dtype == torch.bfloat16 else x for x in outputs)


def _keep(kept: dict[str, Any], stage: str, _module: Any, _inputs: Any, output: Any) -> None:
    """Keeps what a module returns; a pooling returns its weights besides."""
    kept[stage] = output[0] if isinstance(output, tuple) else output


def _array(tensor: Any) -> np.ndarray:
    # A copy: the next step writes into parameters where they are.
    return tensor.detach().cpu().numpy().copy()
