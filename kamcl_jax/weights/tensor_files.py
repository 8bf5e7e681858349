"""Files of named tensors: those of safetensors, and PyTorch's own where PyTorch is installed."""

import contextlib
import dataclasses
import importlib.util
import re
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
import safetensors.numpy
from safetensors import safe_open

from input_pipeline import storage
from kamcl_jax.errors import PretrainedError
from kamcl_jax.weights.torch_layout import StateDict

SUFFIX = ".safetensors"
"""The suffix of the files that need no PyTorch."""

_PARALLEL = "module."


@dataclasses.dataclass(frozen=True)
class Stored:
    """What a file of weights holds.

    Attributes:
      tensors: The state_dict; floats of fewer than 32 bits are widened to f32.
      epoch: How many epochs were trained; None where the file does not tell.
      score: The validation score (`best_rsum` in the release); None where the file does not tell.
    """

    tensors: StateDict
    epoch: int | None
    score: float | None


def check_format(path: Path) -> None:
    """Checks that what reads and writes files of this suffix is installed."""
    if path.suffix != SUFFIX and importlib.util.find_spec("torch") is None:
        raise PretrainedError(
            f"{path} is in PyTorch's own format, which needs PyTorch (pip install torch); "
            f"a {SUFFIX} file does not"
        )


def read(path: str | Path) -> Stored:
    """Reads a file of weights; nothing in it is ever executed.

    A `.safetensors` file is read by safetensors. Any other is taken for PyTorch's: a state_dict, or
    a dictionary that has one under `model` or `state_dict`. The `module.` that
    `torch.nn.DataParallel` puts before all names is left out.
    """
    path = Path(path)
    check_format(path)
    path.open("rb").close()  # what the libraries say of a missing file does not name it
    tensors, record = (_read_safetensors if path.suffix == SUFFIX else _read_torch)(path)
    if not tensors:
        raise PretrainedError(f"{path} holds no tensors")
    if all(name.startswith(_PARALLEL) for name in tensors):
        tensors = {name.removeprefix(_PARALLEL): tensor for name, tensor in tensors.items()}
    epoch, score = record.get("epoch"), record.get("best_rsum")
    return Stored(
        tensors, None if epoch is None else int(epoch), None if score is None else float(score)
    )


@contextlib.contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Names the file in the errors of NumPy and zipfile: a download of gigabytes may be cut off."""
    try:
        yield
    except (PretrainedError, FileNotFoundError):
        raise
    # RuntimeError: damage can look like encryption, or like a compression that is not supported.
    # TypeError: a single array under the name of many is no context.
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        RuntimeError,
        BadZipFile,
        zlib.error,
    ) as error:
        raise PretrainedError(f"{path} is no whole file of NumPy arrays") from error


def write(path: str | Path, tensors: StateDict, *, epoch: int, score: float) -> None:
    """Writes a file of weights, whole or not at all; missing folders are made.

    It becomes `.safetensors`, or with any other suffix a checkpoint of PyTorch's, laid out as the
    release's are. `epoch` counts the trained epochs, and `score` is the validation score.
    """
    path = Path(path)
    check_format(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage.replaced(path, storage.PART) as file:
        if path.suffix == SUFFIX:
            # safetensors writes the memory as it lies, whatever the strides.
            whole = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
            metadata = {"format": "pt", "epoch": str(epoch), "best_rsum": repr(float(score))}
            file.write(safetensors.numpy.save(whole, metadata))
        else:
            _save_torch(file, tensors, epoch, score)


def _read_safetensors(path: Path) -> tuple[StateDict, Mapping[str, Any]]:
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: _widened(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    # Besides SafetensorError: what NumPy raises for types that it does not have.
    except Exception as error:
        raise PretrainedError(f"{path} is no whole safetensors file: {error}") from error


def _widened(array: np.ndarray) -> np.ndarray:
    # "V" is how NumPy sees the bfloat16 of `ml_dtypes`.
    return array.astype(np.float32) if array.dtype.kind in "fV" and array.itemsize < 4 else array


def _read_torch(path: Path) -> tuple[StateDict, Mapping[str, Any]]:
    import torch

    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch meets a damaged file with nearly any of them.
        unwanted = re.search(r"unsupported global:? (?:GLOBAL )?(\S+)", str(error), re.IGNORECASE)
        problem = (
            f"holds a Python object, {unwanted[1]}; only tensors are ever loaded"
            if unwanted
            else "is damaged, or no PyTorch file of tensors alone"
        )
        raise PretrainedError(f"{path} {problem}") from error
    if not isinstance(stored, Mapping):
        raise PretrainedError(f"{path} holds a {type(stored).__name__}, not a state_dict")
    parts = (stored.get(name) for name in ("model", "state_dict"))
    state_dict = next((part for part in parts if isinstance(part, Mapping)), stored)
    tensors = {}
    for name, value in state_dict.items():
        if not isinstance(value, torch.Tensor):
            raise PretrainedError(
                f"the entry {name} of {path} is no tensor but of type {type(value).__name__}"
            )
        short = value.is_floating_point() and value.element_size() < 4
        tensors[str(name)] = (value.float() if short else value).detach().numpy()
    return tensors, stored


def _numpy_numbers() -> list[Any]:
    """What PyTorch must allow for a NumPy number: the release's best score is one."""
    rebuild = np.float64().__reduce__()[0]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # before NumPy 2, and since
    types = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]
    return [*((rebuild, f"{module}.scalar") for module in modules), np.dtype, *types]


def _save_torch(file: IO[bytes], tensors: StateDict, epoch: int, score: float) -> None:
    import torch

    # Copies, since PyTorch warns of arrays that cannot be written to.
    state_dict = OrderedDict(
        (name, torch.from_numpy(np.array(tensor))) for name, tensor in tensors.items()
    )
    release = {
        "epoch": epoch,
        "arch": "baseline",
        "model": state_dict,
        "best_rsum": float(score),
        "options": {},
        "Eiters": 0,
    }
    torch.save(release, file)
