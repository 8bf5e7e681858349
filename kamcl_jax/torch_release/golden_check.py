"""Checks our numbers against a golden file of the PyTorch original."""

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np

from kamcl_jax.config import checks
from kamcl_jax.errors import GoldenFileError
from kamcl_jax.torch_release import golden_inputs, quantities, state_dict
from kamcl_jax.torch_release.quantities import COVERAGE_OF_MODE, GoldenRun
from kamcl_jax.torch_release.tolerances import NOISE_MULTIPLE, Row, compare
from kamcl_jax.weights.release_layout import query_gradient_layout

_INPUTS = {
    "seed": ("i", 0),
    "batch_size": ("i", 0),
    "epochs": ("i", 1),
    "learning_rate": ("f", 0),
    "adam_epsilon": ("f", 0),
    "loss_columns": ("U", 1),
    "tensor_names": ("U", 1),
    "caption_lengths": ("i", 1),
}
"""What a file was made from: name -> kind of NumPy dtype, number of axes."""

_DEFAULTS = {"caption_lengths": np.array(golden_inputs.CAPTION_LENGTHS)}
"""The inputs that a file may leave out, because the first files did not have them."""

_KINDS = {"i": "integer", "f": "number", "U": "string"}
_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    AttributeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise for files that are no npz, or damaged."""
_POOL_WEIGHTS = re.compile(r"eval/pool_weights_(\d+)")

FLOAT64_NOISE_LIMIT = 1e-4
"""Share of a magnitude that the noise may add to its tolerance in float64.

Without it a noise of 7 % would let an error of 70 % pass, where ours is below 1e-6.
"""

SHARED_NOISE_MULTIPLE = 30.0
"""`NOISE_MULTIPLE` for tensors in float32, see `check`."""


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads a golden file whole.

    Raises:
      GoldenFileError: it is missing, no npz file, damaged, or lacks an entry.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            golden = _DEFAULTS | {name: file[name] for name in file.files}
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GoldenFileError(f"the golden file {path} cannot be read: {reason}") from None
    for problem in _problems(golden):
        raise GoldenFileError(f"the golden file {path} has {problem}")
    return golden


def _problems(golden: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Says what is wrong with a golden file, the first thing first."""
    for name, (kinds, axes) in _INPUTS.items():
        if name not in golden:
            yield f"no entry '{name}'"
        elif golden[name].dtype.kind not in kinds or golden[name].ndim != axes:
            yield f"an entry '{name}' that is no {_KINDS[kinds]} of {axes} axes"
    if golden["seed"] < 0 or golden["batch_size"] < 1:
        yield "a negative 'seed' or no 'batch_size'"
    epochs = golden["epochs"]
    if not epochs.size or epochs.min() < 0 or epochs.max() > np.iinfo(np.int32).max:
        yield "'epochs' that are empty or out of range"
    lengths = golden["caption_lengths"]
    if lengths.shape != (2,) or not 1 <= lengths[0] <= lengths[1]:
        yield "'caption_lengths' that are not a shortest and a longest one"
    names = quantity_names(golden)
    if not names:
        yield "no quantity to compare"
    for name in names:
        value = golden[name]
        kinds = "i" if name.endswith("queue_pointer") else "f"
        if value.dtype.kind != kinds or not value.size or not np.isfinite(value).all():
            yield f"an entry '{name}' that is not made of finite {_KINDS[kinds]}s"
        yield from _problems_of_shape(name, golden)


def _problems_of_shape(name: str, golden: Mapping[str, np.ndarray]) -> Iterator[str]:
    value, noise = golden[name], golden.get(f"noise/{name}")
    if name.rpartition("/")[2].startswith("grad_") and f"{_mode(name)}/grad_names" not in golden:
        yield f"no entry '{_mode(name)}/grad_names'"
    tensors = _tensor_names(name, golden)
    if tensors is not None and value.shape[:1] != (len(tensors),):
        yield f"an entry '{name}' of {list(value.shape)} for {len(tensors)} tensors"
    if name.endswith("/losses") and value.shape != (
        len(golden["epochs"]),
        len(golden["loss_columns"]),
    ):
        yield f"an entry '{name}' of {list(value.shape)}, not one loss a step and column"
    if noise is not None:
        fits = noise.shape == value.shape[: noise.ndim]
        if noise.dtype.kind != "f" or not fits or not (np.isfinite(noise) & (noise >= 0)).all():
            yield f"a noise of '{name}' that is not finite or does not fit"


def _mode(quantity: str) -> str:
    return quantity.partition("/")[0]


def run_of(golden: Mapping[str, np.ndarray]) -> GoldenRun:
    """Returns what a golden file was made from."""
    quantities_of = {_mode(name) for name in quantity_names(golden)}
    modes = tuple(mode for mode in COVERAGE_OF_MODE if mode in quantities_of)
    for mode in modes:
        if f"{mode}/grad_names" not in golden:
            raise GoldenFileError(f"the golden file has no entry '{mode}/grad_names'")
    gradients = [golden[f"{mode}/grad_names"] for mode in modes]
    if any(not np.array_equal(names, gradients[0]) for names in gradients):
        raise GoldenFileError("the golden file's modes list different gradients")
    lengths = [match for match in map(_POOL_WEIGHTS.fullmatch, golden) if match]
    return GoldenRun(
        seed=int(golden["seed"]),
        batch_size=int(golden["batch_size"]),
        epochs=tuple(int(epoch) for epoch in golden["epochs"]),
        learning_rate=float(golden["learning_rate"]),
        epsilon=float(golden["adam_epsilon"]),
        loss_columns=_words(golden["loss_columns"]),
        tensor_names=_words(golden["tensor_names"]),
        gradient_names=_words(gradients[0]) if gradients else (),
        modes=modes,
        pool_lengths=tuple(sorted(int(match[1]) for match in lengths)),
        caption_lengths=(int(golden["caption_lengths"][0]), int(golden["caption_lengths"][1])),
    )


def quantity_names(golden: Mapping[str, np.ndarray]) -> list[str]:
    """Returns the names of everything in the file that is a result, not an input or a noise."""
    return [
        name
        for name in golden
        if name not in _INPUTS
        and not name.endswith("/grad_names")
        and not name.startswith("noise/")
    ]


def check(
    golden: Mapping[str, np.ndarray], config: ml_collections.ConfigDict, precision: str
) -> list[Row]:
    """Computes everything in a golden file and compares.

    The golden values are float64. So are ours with that precision, and then every tolerance means
    what it says. In float32 two features closer than rounding trade places in a sorted list, a
    hardest negative or a ReLU flips, and gradients change by jumps, more so after every step: the
    noise of one run of the original tells little about that of another in the same tensor. There
    a tensor's tolerance is `SHARED_NOISE_MULTIPLE` times the largest relative noise among all
    tensors of its encoder.

    Args:
      golden: from `read`.
      config: of the release.
      precision: of our arithmetic, "float64" or "float32".

    Returns:
      One row a quantity.

    Raises:
      GoldenFileError: the file asks for something that we do not have.
      ConfigError: the config cannot be run with the file's batch size.
    """
    run = run_of(golden)
    _check_run(run, config)
    ours = quantities.compute(run, config, getattr(np, precision))
    return compare_all(ours, golden, precision)


def compare_all(
    ours: Mapping[str, np.ndarray], golden: Mapping[str, np.ndarray], precision: str
) -> list[Row]:
    """Compares everything in a golden file with what we have computed in that precision."""
    rows = []
    for name in quantity_names(golden):
        noise, multiple = golden.get(f"noise/{name}"), NOISE_MULTIPLE
        if precision == "float32" and noise is not None and np.ndim(noise):
            tensors = _tensor_names(name, golden)
            if tensors is not None:
                noise, multiple = shared_noise(golden[name], noise, tensors), SHARED_NOISE_MULTIPLE
        limit = FLOAT64_NOISE_LIMIT if precision == "float64" else None
        rows.append(compare(name, ours.get(name), golden[name], noise, multiple, limit))
    return rows


def shared_noise(golden: np.ndarray, noise: np.ndarray, tensors: Sequence[str]) -> np.ndarray:
    """Gives all tensors of an encoder the largest relative noise among them.

    Args:
      golden: f64[N] or f64[N, M], a quantity of N tensors.
      noise: f64[N].
      tensors: their N names.

    Returns:
      f64[N], absolute noise.
    """
    magnitude = np.abs(golden).reshape(len(noise), -1).max(axis=1)
    relative = noise / np.where(magnitude > 0, magnitude, np.inf)
    encoders = np.array([tensor.partition(".")[0].rstrip("QK") for tensor in tensors])
    largest = {encoder: relative[encoders == encoder].max() for encoder in encoders}
    return magnitude * [largest[encoder] for encoder in encoders]


def explain(row: Row, golden: Mapping[str, np.ndarray], shown: int = 5) -> str:
    """Names the tensors beyond their tolerance in a failed row, "" where entries have no names."""
    names = _tensor_names(row.name, golden)
    if names is None:
        return ""
    failed = [names[index] for index in row.failed]
    more = f" and {len(failed) - shown} more" if len(failed) > shown else ""
    return f"{row.name}: {', '.join(failed[:shown])}{more}"


def _check_run(run: GoldenRun, config: ml_collections.ConfigDict) -> None:
    checks.check_config(quantities.config_of_run(config, run))
    state = state_dict.tensor_shapes(
        config, golden_inputs.VOCABULARY_SIZE + 1, golden_inputs.NUM_CONCEPTS
    )
    gradients = query_gradient_layout(config.image_encoder.depth)
    for what, asked, known in (
        ("tensor", run.tensor_names, state),
        ("gradient", run.gradient_names, gradients),
        ("loss", run.loss_columns, quantities.LOSSES),
    ):
        unknown = [name for name in asked if name not in known]
        if unknown:
            raise GoldenFileError(f"the golden file has the {what} {unknown[0]!r}; we have none")


def _tensor_names(quantity: str, golden: Mapping[str, np.ndarray]) -> tuple[str, ...] | None:
    """What the rows of a quantity are, None where they are no tensors."""
    kind = quantity.rpartition("/")[2]
    if kind.startswith("grad_"):
        return _words(golden[f"{_mode(quantity)}/grad_names"])
    return _words(golden["tensor_names"]) if kind in ("l2", "mean", "first4") else None


def _words(array: np.ndarray) -> tuple[str, ...]:
    return tuple(str(word) for word in array)
