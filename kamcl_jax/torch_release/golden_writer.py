"""Writes a golden file: what the PyTorch original computes from weights and batches of a seed.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from input_pipeline import storage
from kamcl_jax.errors import GoldenFileError
from kamcl_jax.torch_release import checkout as torch_checkout
from kamcl_jax.torch_release import golden_inputs, quantities
from kamcl_jax.torch_release import original as torch_original
from kamcl_jax.torch_release.original import QUEUE_LENGTH, TorchOriginal
from kamcl_jax.torch_release.quantities import COVERAGE_OF_MODE, LOSSES, GoldenRun, Quantities
from kamcl_jax.weights.torch_layout import StateDict

LEARNING_RATE, EPSILON = 2e-4, 1e-3
"""Of Adam. With its usual epsilon, entries whose gradient is rounding noise move by the whole
learning rate, and no comparison after a step is well conditioned."""

EPOCHS = (0, 10, 11, 12)
"""The concept loss takes part from epoch 11 on."""

POOL_LENGTHS = (2, 6, 7, 15, 64, 192)
"""Numbers of items: those of the towers' poolings, and two odd ones."""

_LOGITS = 16
"""Columns of the logits that are kept."""

_NOISE_OF_ENTRIES = ("l2", "mean", "grad_norms", "losses", "skipthoughts_mean")
_NOISE_OF_ROWS = ("first4", "grad_first4")


def plan(
    seed: int,
    batch_size: int,
    caption_lengths: Sequence[str],
    epochs: Sequence[str],
    modes: Sequence[str],
) -> GoldenRun:
    """Reads what to run as it is written on the command line.

    Args:
      seed: of weights and batches.
      batch_size: B.
      caption_lengths: words of the shortest and of the longest caption, as `["4", "14"]`.
      epochs: the epoch of each step.
      modes: momentum updates, keys of `COVERAGE_OF_MODE`.

    Raises:
      GoldenFileError: something cannot be read, or the original cannot run it.
    """
    if seed < 0:
        raise GoldenFileError(f"a golden file's seed is 0 or more, not {seed}")
    if batch_size < 1 or QUEUE_LENGTH % batch_size:
        raise GoldenFileError(
            f"the original takes batches that divide its queues of {QUEUE_LENGTH} keys, "
            f"and {batch_size} does not"
        )
    lengths = _integers(caption_lengths)
    if len(lengths) != 2 or not 1 <= lengths[0] <= lengths[1]:
        raise GoldenFileError(
            "caption lengths are two numbers of words from 1, the shortest first, as 4,14, "
            f"not {','.join(caption_lengths)}"
        )
    steps = _integers(epochs)
    if not steps or min(steps) < 0 or max(steps) > np.iinfo(np.int32).max:
        raise GoldenFileError(
            "epochs are one whole number from 0 for each training step, as 0,10,11,12, "
            f"not {','.join(epochs)}"
        )
    unknown = [mode for mode in modes if mode not in COVERAGE_OF_MODE]
    if unknown or not modes:
        raise GoldenFileError(
            f"the momentum is {' or '.join(COVERAGE_OF_MODE)}, or both, not {','.join(modes)}"
        )
    return GoldenRun(
        seed=seed,
        batch_size=batch_size,
        epochs=steps,
        learning_rate=LEARNING_RATE,
        epsilon=EPSILON,
        loss_columns=LOSSES,
        modes=tuple(dict.fromkeys(modes)),
        pool_lengths=POOL_LENGTHS,
        caption_lengths=(lengths[0], lengths[1]),
    )


def _integers(words: Sequence[str]) -> tuple[int, ...]:
    """Returns whole numbers, or none at all if a word is something else."""
    try:
        return tuple(int(word) for word in words)
    except ValueError:
        return ()


def check(path: Path, checkout: Path) -> None:
    """Refuses what would fail only after minutes of work.

    Args:
      path: of the file to write.
      checkout: folder of a clone of the original.

    Raises:
      GoldenFileError: there is such a file.
      TorchOriginalError: the folder is no clone of the original, or PyTorch is missing.
      OSError: the file's folder cannot be made.
    """
    if path.exists():
        raise GoldenFileError(f"{path} exists already, and nothing is written over it")
    torch_checkout.check(checkout)
    path.parent.mkdir(parents=True, exist_ok=True)


def write(path: Path, checkout: Path, run: GoldenRun) -> tuple[str, ...]:
    """Runs the original in float64 and in float32 and writes the file.

    Args:
      path: of the file.
      checkout: folder of a clone of the original.
      run: what to run; the names of tensors and gradients come from the original.

    Returns:
      The third-party packages of the original that are not installed and were replaced.

    Raises:
      TorchOriginalError: the original cannot be run.
    """
    exact, stand_ins = _compute(checkout, run, np.float64)
    rounded, _ = _compute(checkout, run, np.float32)
    with storage.replaced(path, storage.PART) as file:
        np.savez_compressed(file, allow_pickle=False, **contents(run, exact, rounded))
    return stand_ins


def contents(run: GoldenRun, exact: Quantities, rounded: Quantities) -> Quantities:
    """Returns a golden file's entries.

    Args:
      run: what both were made from.
      exact: from `record`, in float64.
      rounded: likewise, in float32.
    """
    names = [name for name, value in exact.items() if value.dtype.kind == "f"]
    return {
        "seed": np.array(run.seed),
        "batch_size": np.array(run.batch_size),
        "caption_lengths": np.array(run.caption_lengths),
        "epochs": np.array(run.epochs),
        "learning_rate": np.array(run.learning_rate),
        "adam_epsilon": np.array(run.epsilon),
        "loss_columns": np.array(run.loss_columns),
        **{name: _stored(name, value) for name, value in exact.items()},
        **{f"noise/{name}": noise(name, exact[name], rounded[name]) for name in names},
    }


def _stored(name: str, value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if name.endswith(("/queue_image", "/queue_text")) else value


def noise(name: str, exact: np.ndarray, rounded: np.ndarray) -> np.ndarray:
    """Returns how far a float32 run is from the float64 one.

    Args:
      name: of the quantity.
      exact: f64[...].
      rounded: f32[...].

    Returns:
      f64: as many as the quantity has entries, as it has rows, or one, by what the quantity is.
    """
    error = np.abs(rounded.astype(np.float64) - exact)
    kind = name.rpartition("/")[2]
    if kind in _NOISE_OF_ENTRIES:
        return error
    return error.max(axis=1) if kind in _NOISE_OF_ROWS else error.max()


def _compute(checkout: Path, run: GoldenRun, dtype: type) -> tuple[Quantities, tuple[str, ...]]:
    original = torch_original.load_original(
        checkout, golden_inputs.VOCABULARY_SIZE, QUEUE_LENGTH, dtype
    )
    return record(original, run), original.stand_ins


def record(original: TorchOriginal, run: GoldenRun) -> Quantities:
    """Runs the original and returns its quantities in its precision, and the names of their rows.

    Args:
      original: its state is overwritten.
      run: what to run.
    """
    start = {
        name: golden_inputs.tensor(name, tensor.shape, run.seed)
        for name, tensor in original.state_dict().items()
    }
    names = tuple(
        name
        for name, tensor in start.items()
        if tensor.dtype.kind == "f" and not name.startswith("queue_")
    )
    run = dataclasses.replace(run, tensor_names=names)
    original.load(start)
    recorded = {"tensor_names": np.array(names)}
    recorded |= {f"eval/{name}": value for name, value in _evaluate(original, run).items()}
    for mode in run.modes:
        original.load(start)
        of_mode = _train(original, run, COVERAGE_OF_MODE[mode])
        recorded |= {f"{mode}/{name}": value for name, value in of_mode.items()}
    return recorded


def _evaluate(original: TorchOriginal, run: GoldenRun) -> Quantities:
    outputs = original.encode_stages(run.batch(0))
    outputs |= quantities.condense_states(outputs.pop("states"))
    pooling = {
        f"pool_weights_{length}": original.pool_weights(length) for length in run.pool_lengths
    }
    return outputs | pooling


def _train(original: TorchOriginal, run: GoldenRun, coverage: str) -> Quantities:
    recorded: Quantities = {}
    losses = []
    for number, epoch in enumerate(run.epochs):
        step = original.train_step(
            epoch, run.batch(number), run.learning_rate, run.epsilon, coverage
        )
        losses.append(step["losses"])
        gradients = step["gradients"]
        recorded[f"step{number}/grad_norms"] = np.array(
            [quantities.l2(gradient) for gradient in gradients.values()]
        )
        if number == 0:
            recorded |= _first_step(step)
        if run.records_state_after(number + 1):
            written = (number + 1) * run.batch_size
            state = _without_untouched_keys(original.state_dict(), written + run.batch_size)
            described = quantities.describe_state(state, run.tensor_names)
            recorded |= {f"after{number + 1}/{name}": value for name, value in described.items()}
    return {**recorded, "losses": np.array(losses)}


def _first_step(step: dict[str, Any]) -> Quantities:
    gradients = step["gradients"]
    return {
        "grad_names": np.array([*gradients]),
        "step0/grad_first4": np.stack(
            [quantities.first4(gradient) for gradient in gradients.values()]
        ),
        "step0/logits_image_head": step["logits_image"][:, :_LOGITS],
        "step0/logits_text_head": step["logits_text"][:, :_LOGITS],
        "step0/sims": step["sims"],
    }


def _without_untouched_keys(state: StateDict, columns: int) -> StateDict:
    """Cuts both queues to their first columns."""
    queues = {name: state[name][:, :columns] for name in ("queue_im", "queue_tx")}
    return {**state, **queues}
