"""The golden file: what the PyTorch original computes from weights and batches of a seed.

A golden file is an `.npz` archive. B is the batch size, S the number of steps, N the number of
recorded tensors, G that of gradients, T the longest caption of the first batch.

What it was made from: `seed`, `batch_size`, `caption_lengths` (i64[2], words of the shortest and of
the longest caption that may be drawn), `epochs` (i64[S], the epoch that each step belongs to),
`learning_rate` and `adam_epsilon`; names of what its rows are: `loss_columns`, `tensor_names` (all
numbers of the state_dict but the queues), `MODE/grad_names`.

What the original computes from that in float64:

* `eval/...`, of the first batch in evaluation mode: the stages `final`, `low`, `high`, `sentence`,
  the embeddings and concepts of both towers f64[B, 512], their cosines `sims` f64[B, B], the text
  GRU's states as `skipthoughts_mean` f64[B, T] and `skipthoughts_head` f64[B, T, 8], and
  `pool_weights_n` f64[n].
* `MODE/...`, of the training steps with the momentum update of the release (`release`) or with the
  same one over all tensors (`paper`): `losses` f64[S, 4]; `stepK/grad_norms` f64[G]; of the first
  step `grad_first4` f64[G, 4], the first columns of the logits and `sims`; after the first and the
  last step, as `afterK/...`, `l2` f64[N], `mean` f64[N] and `first4` f64[N, 4] of all tensors, the
  columns of both queues that were written, and those of one more batch, in float32, and
  `queue_pointer` i64[2].
* `noise/...`: how far the original's own float32 run is from that; one number for each entry, for
  each tensor (of first values), or one in all.
"""

import dataclasses
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from input_pipeline import storage
from kamcl_jax.errors import GoldenFileError
from kamcl_jax.torch_release import golden_inputs
from kamcl_jax.torch_release.tolerances import QUEUES

Quantities = dict[str, np.ndarray]
"""Computed numbers under their names in the file."""

COVERAGE_OF_MODE = {"release": "release", "paper": "all"}
"""The file's mode -> `config.momentum_coverage`: the two modes differ in nothing else."""

_INPUTS = (
    "seed",
    "batch_size",
    "caption_lengths",
    "epochs",
    "learning_rate",
    "adam_epsilon",
    "loss_columns",
    "tensor_names",
)
_GRADIENT_NAMES = "/grad_names"
_POOL_WEIGHTS = "eval/pool_weights_"


@dataclasses.dataclass(frozen=True)
class GoldenRun:
    """What a golden file was made from.

    Attributes:
      seed: The seed of weights and batches.
      batch_size: B.
      epochs: The epoch that each step belongs to, one step an entry.
      learning_rate, epsilon: Adam's, both constant.
      loss_columns: The loss terms, in the file's order.
      tensor_names: The state_dict entries whose values are recorded.
      gradient_names: The parameters whose gradients are recorded.
      modes: Keys of `COVERAGE_OF_MODE`.
      pool_lengths: The numbers of items for which pooling weights are recorded.
      caption_lengths: Words of the shortest and of the longest caption that may be drawn.
    """

    seed: int
    batch_size: int
    epochs: tuple[int, ...]
    learning_rate: float
    epsilon: float
    loss_columns: tuple[str, ...] = ()
    tensor_names: tuple[str, ...] = ()
    gradient_names: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    pool_lengths: tuple[int, ...] = ()
    caption_lengths: tuple[int, int] = golden_inputs.CAPTION_LENGTHS

    def batch(self, number: int) -> dict[str, np.ndarray]:
        """Draws the batch of a step, from 0; see `golden_inputs.draw_batch`."""
        return golden_inputs.draw_batch(number, self.seed, self.batch_size, self.caption_lengths)


def read(path: Path) -> Quantities:
    """Reads a golden file whole."""
    # The first files did not have the lengths of their captions.
    golden = {"caption_lengths": np.array(golden_inputs.CAPTION_LENGTHS)}
    try:
        with np.load(path, allow_pickle=False) as file:
            golden |= {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GoldenFileError(f"the golden file {path} cannot be read: {reason}") from None
    needed = (*_INPUTS, *(mode + _GRADIENT_NAMES for mode in _modes(golden)))
    problems = [f"no entry '{name}'" for name in needed if name not in golden]
    if not quantity_names(golden):
        problems.append("no quantity to compare")
    if problems:
        raise GoldenFileError(f"the golden file {path} has {problems[0]}")
    return golden


def run_of(golden: Mapping[str, np.ndarray]) -> GoldenRun:
    """Returns what a golden file was made from."""
    modes = _modes(golden)
    shortest, longest = golden["caption_lengths"]
    pooled = [name for name in golden if name.startswith(_POOL_WEIGHTS)]
    return GoldenRun(
        seed=int(golden["seed"]),
        batch_size=int(golden["batch_size"]),
        epochs=tuple(int(epoch) for epoch in golden["epochs"]),
        learning_rate=float(golden["learning_rate"]),
        epsilon=float(golden["adam_epsilon"]),
        loss_columns=_words(golden["loss_columns"]),
        tensor_names=_words(golden["tensor_names"]),
        gradient_names=_words(golden[modes[0] + _GRADIENT_NAMES]) if modes else (),
        modes=modes,
        pool_lengths=tuple(sorted(int(name.removeprefix(_POOL_WEIGHTS)) for name in pooled)),
        caption_lengths=(int(shortest), int(longest)),
    )


def _modes(golden: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    parts = {name.partition("/")[0] for name in quantity_names(golden)}
    return tuple(mode for mode in COVERAGE_OF_MODE if mode in parts)


def quantity_names(golden: Mapping[str, np.ndarray]) -> list[str]:
    """Returns the names of everything in the file that is a result, not an input or a noise."""
    return [
        name
        for name in golden
        if name not in _INPUTS
        and not name.endswith(_GRADIENT_NAMES)
        and not name.startswith("noise/")
    ]


def tensor_names(quantity: str, golden: Mapping[str, np.ndarray]) -> tuple[str, ...] | None:
    """Returns the tensors that a quantity's rows belong to; None where its rows are none."""
    mode, _, rest = quantity.partition("/")
    kind = rest.rpartition("/")[2]
    if kind.startswith("grad_"):
        return _words(golden[mode + _GRADIENT_NAMES])
    return _words(golden["tensor_names"]) if kind in ("l2", "mean", "first4") else None


def _words(array: np.ndarray) -> tuple[str, ...]:
    return tuple(str(word) for word in array)


def write(path: Path, run: GoldenRun, exact: Quantities, rounded: Quantities) -> None:
    """Writes a golden file of a run.

    `exact` is what `quantities.record` returned in float64, and `rounded` the same in float32.
    """
    names = [name for name, value in exact.items() if value.dtype.kind == "f"]
    entries = {
        "seed": np.array(run.seed),
        "batch_size": np.array(run.batch_size),
        "caption_lengths": np.array(run.caption_lengths),
        "epochs": np.array(run.epochs),
        "learning_rate": np.array(run.learning_rate),
        "adam_epsilon": np.array(run.epsilon),
        "loss_columns": np.array(run.loss_columns),
        **{n: v.astype(np.float32) if n.endswith(QUEUES) else v for n, v in exact.items()},
        **{f"noise/{name}": _noise(name, exact[name], rounded[name]) for name in names},
    }
    with storage.replaced(path, storage.PART) as file:
        np.savez_compressed(file, allow_pickle=False, **entries)


def _noise(name: str, exact: np.ndarray, rounded: np.ndarray) -> np.ndarray:
    """Returns how far a float32 run is from the float64 one: of each entry, each row, or in all."""
    error = np.abs(rounded.astype(np.float64) - exact)
    kind = name.rpartition("/")[2]
    if kind in ("l2", "mean", "grad_norms", "losses", "skipthoughts_mean"):
        return error
    return error.max(axis=1) if kind in ("first4", "grad_first4") else error.max()
