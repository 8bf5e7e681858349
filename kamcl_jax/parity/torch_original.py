"""Runs the authors' PyTorch program out of a user's checkout, on the CPU.

The checkout's code runs as it is. What it needs around it is put in place for the time of an
import or a call and undone afterwards: its folder on `sys.path`, its module names, `.cuda()`
without a GPU, constructors that would download weights. Nothing is written into the checkout.

PyTorch is optional, so it is imported inside of functions.
"""

import contextlib
import importlib
import sys
import textwrap
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from kamcl_jax.pretrained.torch_layout import StateDict

Batch = Mapping[str, np.ndarray]
"""image f32[B, 256, 256, 3], normalised; tokens i32[B, T], padded with 0 to the longest caption;
word_concepts f32[B, 512]; image_concepts f32[B, 512]. Other entries are ignored."""

IMAGE_SIZE, NUM_CONCEPTS = 256, 512
"""Fixed in the original's layers."""

MARGIN = 0.2
"""Of the triplet loss; the original's option files all say so."""

# A module comes after those it imports, so that the first to fail is the one to blame.
_MODULES = ("layers.gpo", "layers.seq2vec", "layers.KAMCL_utils", "layers.KAMCL", "utils")
_TOP_LEVEL = ("layers", "utils")

# Package -> the module of it that is imported.
_THIRD_PARTY = {
    "torchvision": "torchvision.models.resnet",
    "skipthoughts": "skipthoughts",
    "xlwt": "xlwt",
}


class TorchOriginalError(ValueError):
    """The original cannot be run, told in one sentence."""


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
                f"the state does not fit the PyTorch original: {_last_line(error)}"
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
        with torch.no_grad(), _on_the_cpu(self._dtype):
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
        with _on_the_cpu(self._dtype):
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
    checkout = Path(checkout).resolve()
    _check_files(checkout)
    _check_torch()
    with (
        _importing_from(checkout) as stand_ins,
        _nothing_downloaded(stand_ins),
        _on_the_cpu(dtype),
    ):
        modules = {name: _import_from_checkout(name, checkout) for name in _MODULES}
        try:
            words = [str(number) for number in range(vocabulary_size)]
            model = modules["layers.KAMCL"].BaseModel(_options(), words, K=queue_length)
            loss = modules["utils"].calcul_loss
        except Exception as error:
            raise TorchOriginalError(
                f"the model of the checkout {checkout} cannot be built: {_last_line(error)}"
            ) from error
    return TorchOriginal(model, loss, stand_ins, dtype)


def _check_files(checkout: Path) -> None:
    if not checkout.is_dir():
        raise TorchOriginalError(f"the checkout of the PyTorch original, {checkout}, is no folder")
    for name in sorted(f"{module.replace('.', '/')}.py" for module in _MODULES):
        if not (checkout / name).is_file():
            raise TorchOriginalError(
                f"{checkout} is no checkout of github.com/mcx-mcx/KAMCL: it has no {name}"
            )


def _check_torch() -> None:
    try:
        importlib.import_module("torch")
    except (ImportError, OSError) as error:  # OSError: of its shared libraries
        raise TorchOriginalError(
            "running the PyTorch original needs PyTorch (pip install torch), "
            f"which cannot be imported: {_last_line(error)}"
        ) from error


def _import_from_checkout(name: str, checkout: Path) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # it is not our code: anything may come
        raise TorchOriginalError(
            f"the module {name} of the checkout {checkout} cannot be imported: {_last_line(error)}"
        ) from error


def _options() -> dict[str, Any]:
    """The original's model options, as far as they are read."""
    text_encoder = {"arch": "skipthoughts", "dir_st": "", "dropout": 0.0, "fixed_emb": False}
    return {"seq2vec": text_encoder, "embed": {"embed_dim": NUM_CONCEPTS}}


@contextlib.contextmanager
def _on_the_cpu(dtype: type) -> Iterator[None]:
    """Makes `.cuda()` do nothing, hides GPUs, and makes new tensors of this dtype."""
    import torch

    def unmoved(self: Any, *_args: Any, **_options: Any) -> Any:
        return self

    def absent() -> bool:
        return False

    with (
        mock.patch.object(torch.Tensor, "cuda", unmoved),
        mock.patch.object(torch.nn.Module, "cuda", unmoved),
        mock.patch.object(torch.cuda, "is_available", absent),
    ):
        default = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, np.dtype(dtype).name))
        try:
            yield
        finally:
            torch.set_default_dtype(default)


@contextlib.contextmanager
def _importing_from(checkout: Path) -> Iterator[tuple[str, ...]]:
    """Lets the checkout's modules be imported under their own names, and puts in stand-ins.

    Those that are imported live on in the model; `sys.modules` forgets them.

    Args:
      checkout: its folder.

    Yields:
      The third-party packages that have a stand-in.
    """
    before, wrote_bytecode = dict(sys.modules), sys.dont_write_bytecode
    borrowed = [*_TOP_LEVEL]
    _forget(borrowed)
    sys.path.insert(0, str(checkout))
    sys.dont_write_bytecode = True
    # The folder has no __init__.py: found by path, any installed package of the name would win.
    sys.modules["layers"] = types.ModuleType("layers")
    sys.modules["layers"].__path__ = [str(checkout / "layers")]
    try:
        for package, module in _THIRD_PARTY.items():
            if not _can_import(module):
                borrowed.append(package)
                _forget([package])  # a failed import leaves parts behind
                sys.modules.update(_stand_ins(package))
        yield tuple(borrowed[len(_TOP_LEVEL) :])
    finally:
        sys.dont_write_bytecode = wrote_bytecode
        sys.path.remove(str(checkout))
        _forget(borrowed)
        _forget_files_in(checkout, keep=before)
        sys.modules.update({n: m for n, m in before.items() if _package(n) in borrowed})


def _package(module: str) -> str:
    return module.partition(".")[0]


def _forget(packages: list[str]) -> None:
    for name in [name for name in sys.modules if _package(name) in packages]:
        del sys.modules[name]


def _forget_files_in(folder: Path, keep: Mapping[str, types.ModuleType]) -> None:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name not in keep and file and Path(file).is_relative_to(folder):
            del sys.modules[name]


def _can_import(module: str) -> bool:
    # A torchvision that does not match its PyTorch warns and raises RuntimeError.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(module)
        except Exception:
            return False
    return True


def _stand_ins(package: str) -> dict[str, types.ModuleType]:
    from kamcl_jax.parity import torch_stand_ins

    return torch_stand_ins.modules(package)


@contextlib.contextmanager
def _nothing_downloaded(stand_ins: tuple[str, ...]) -> Iterator[None]:
    """Keeps real third-party packages from reading or downloading weights at construction.

    Also gives PyTorch back a name that the original imports, never calls, and PyTorch gives up.
    """
    with contextlib.ExitStack() as stack:
        clip_grad = importlib.import_module("torch.nn.utils.clip_grad")
        if not hasattr(clip_grad, "clip_grad_norm"):
            clip = clip_grad.clip_grad_norm_
            stack.enter_context(mock.patch.object(clip_grad, "clip_grad_norm", clip, create=True))
        if "torchvision" not in stand_ins:
            resnet = sys.modules[_THIRD_PARTY["torchvision"]]
            for name in ("resnet18", "resnet50", "resnet101"):
                untrained = _without_arguments(getattr(resnet, name))
                stack.enter_context(mock.patch.object(resnet, name, untrained))
        if "skipthoughts" not in stand_ins:
            from kamcl_jax.parity.torch_stand_ins import SKIP_THOUGHTS_LOADERS

            encoder = sys.modules["skipthoughts"].BayesianUniSkip
            for name, loader in SKIP_THOUGHTS_LOADERS.items():
                stack.enter_context(mock.patch.object(encoder, name, loader))
        yield


def _without_arguments(build: Callable[[], Any]) -> Callable[..., Any]:
    return lambda *_args, **_options: build()


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


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # PyTorch lists every tensor that does not fit in one line.
    return textwrap.shorten(lines[-1], 200) if lines else type(error).__name__
