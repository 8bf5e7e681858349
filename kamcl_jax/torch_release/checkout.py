"""Imports the authors' PyTorch program out of your checkout, and builds its model.

The checkout's code runs as it is. What it needs around it is put in place for the time of an
import or a call and undone afterwards: its folder on `sys.path`, its module names, `.cuda()`
without a GPU, constructors that would download weights, and stand-ins (`stand_ins.py`) for packages
that are not installed. Nothing is written into the checkout.

PyTorch is optional, so it is imported inside of functions.
"""

import contextlib
import importlib.util
import sys
import textwrap
import types
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from kamcl_jax.errors import TorchOriginalError

NUM_CONCEPTS = 512
"""The number of concepts, which is fixed in the original's layers."""

# A module comes after those it imports, so that the first to fail is the one to blame.
MODEL_MODULES = ("layers.gpo", "layers.seq2vec", "layers.KAMCL_utils", "layers.KAMCL", "utils")
DATA_MODULES = ("utils", "vocab", "data")

_THIRD_PARTY = {
    "torchvision": "torchvision.models.resnet",
    "skipthoughts": "skipthoughts",
    "xlwt": "xlwt",
}
"""Packages that have a stand-in -> the module of each that the original imports."""


def load_model(
    checkout: Path,
    vocabulary_size: int,
    queue_length: int,
    dtype: type,
    dropout: float,
    on_gpu: bool,
) -> tuple[Any, types.ModuleType, tuple[str, ...]]:
    """Builds the original's model with random weights; see `original.TorchOriginal`.

    Returns:
      The `BaseModel`; the original's module `utils`, which has the loss; the third-party packages
      that could not be imported and were replaced by `stand_ins`.
    """
    checkout = checkout.resolve()
    check_checkout(checkout, MODEL_MODULES)
    text_encoder = {"arch": "skipthoughts", "dir_st": "", "dropout": dropout, "fixed_emb": False}
    options = {"seq2vec": text_encoder, "embed": {"embed_dim": NUM_CONCEPTS}}
    words = [str(number) for number in range(vocabulary_size)]
    with (
        _importing_from(checkout, MODEL_MODULES) as stand_ins,
        _nothing_downloaded(stand_ins),
        surroundings(dtype, on_gpu=on_gpu),
    ):
        modules = {name: _import_from_checkout(name, checkout) for name in MODEL_MODULES}
        model = modules["layers.KAMCL"].BaseModel(options, words, K=queue_length)
    return model, modules["utils"], stand_ins


def load_modules(checkout: Path, names: Sequence[str]) -> dict[str, types.ModuleType]:
    """Imports modules of a checkout, each after those that it imports, as in `DATA_MODULES`."""
    checkout = checkout.resolve()
    check_checkout(checkout, names)
    with _importing_from(checkout, names), surroundings(np.float32):
        return {name: _import_from_checkout(name, checkout) for name in names}


def check_checkout(checkout: Path, modules: Sequence[str] = MODEL_MODULES) -> None:
    """Checks that a folder has these modules of the original, and that there is PyTorch."""
    if not checkout.is_dir():
        raise TorchOriginalError(f"the checkout of the PyTorch original, {checkout}, is no folder")
    for name in sorted(f"{module.replace('.', '/')}.py" for module in modules):
        if not (checkout / name).is_file():
            raise TorchOriginalError(
                f"{checkout} is no checkout of github.com/mcx-mcx/KAMCL: it has no {name}"
            )
    if importlib.util.find_spec("torch") is None:
        raise TorchOriginalError("running the PyTorch original needs PyTorch (pip install torch)")


def _import_from_checkout(name: str, checkout: Path) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # it is not our code: anything may come
        raise TorchOriginalError(
            f"the module {name} of the checkout {checkout} cannot be imported: {last_line(error)}"
        ) from error


@contextlib.contextmanager
def surroundings(dtype: type, *, on_gpu: bool = False) -> Iterator[None]:
    """Makes new tensors of this dtype; without a GPU, `.cuda()` does nothing and none is seen."""
    import torch

    def unmoved(self: Any, *_args: Any, **_options: Any) -> Any:
        return self

    with contextlib.ExitStack() as stack:
        if not on_gpu:
            stack.enter_context(mock.patch.object(torch.Tensor, "cuda", unmoved))
            stack.enter_context(mock.patch.object(torch.nn.Module, "cuda", unmoved))
            stack.enter_context(mock.patch.object(torch.cuda, "is_available", return_value=False))
        default = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, np.dtype(dtype).name))
        try:
            yield
        finally:
            torch.set_default_dtype(default)


@contextlib.contextmanager
def _importing_from(checkout: Path, modules: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Lets the checkout's modules be imported under their own names, and puts in stand-ins.

    It yields the packages that got a stand-in. Imported modules live on in the model; `sys.modules`
    forgets them.
    """
    from kamcl_jax.torch_release import stand_ins  # it imports PyTorch

    replaced = tuple(package for package in _THIRD_PARTY if not _can_import(_THIRD_PARTY[package]))
    borrowed = {_package(name) for name in modules}.union(replaced)
    of_others = _take_out(borrowed)  # a failed import leaves parts behind, too
    # The folder has no __init__.py: found by path, any installed package of the name would win.
    sys.modules["layers"] = types.ModuleType("layers")
    sys.modules["layers"].__path__ = [str(checkout / "layers")]
    for package in replaced:
        sys.modules.update(stand_ins.modules(package))
    path = [str(checkout), *sys.path]
    with mock.patch.multiple(sys, path=path, dont_write_bytecode=True):
        try:
            yield replaced
        finally:
            _take_out(borrowed)
            sys.modules.update(of_others)


def _package(module: str) -> str:
    return module.partition(".")[0]


def _take_out(packages: Collection[str]) -> dict[str, types.ModuleType]:
    names = [name for name in sys.modules if _package(name) in packages]
    return {name: sys.modules.pop(name) for name in names}


def _can_import(module: str) -> bool:
    # A torchvision that does not match its PyTorch warns and raises RuntimeError.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(module)
        except Exception:
            return False
    return True


@contextlib.contextmanager
def _nothing_downloaded(stand_ins: tuple[str, ...]) -> Iterator[None]:
    """Keeps real third-party packages from reading or downloading weights at construction.

    Also gives PyTorch back a name that the original imports, never calls, and PyTorch gives up.
    """
    from kamcl_jax.torch_release.stand_ins import SKIP_THOUGHTS_LOADERS

    with contextlib.ExitStack() as stack:
        clip_grad = importlib.import_module("torch.nn.utils.clip_grad")
        clip = clip_grad.clip_grad_norm_
        stack.enter_context(mock.patch.object(clip_grad, "clip_grad_norm", clip, create=True))
        if "torchvision" not in stand_ins:
            resnet = sys.modules[_THIRD_PARTY["torchvision"]]
            for name in ("resnet18", "resnet50", "resnet101"):
                untrained = _without_arguments(getattr(resnet, name))
                stack.enter_context(mock.patch.object(resnet, name, untrained))
        if "skipthoughts" not in stand_ins:
            encoder = sys.modules["skipthoughts"].BayesianUniSkip
            for name, loader in SKIP_THOUGHTS_LOADERS.items():
                stack.enter_context(mock.patch.object(encoder, name, loader))
        yield


def _without_arguments(build: Callable[[], Any]) -> Callable[..., Any]:
    return lambda *_args, **_options: build()


def last_line(error: Exception) -> str:
    """Returns the last line of an error's message, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # PyTorch lists every tensor that does not fit in one line.
    return textwrap.shorten(lines[-1], 200) if lines else type(error).__name__
