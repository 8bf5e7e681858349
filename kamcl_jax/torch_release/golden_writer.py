"""Makes a golden file: lets the PyTorch original compute what `golden_file` describes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kamcl_jax.errors import GoldenFileError
from kamcl_jax.torch_release import golden_file, golden_inputs
from kamcl_jax.torch_release.checkout import check_checkout
from kamcl_jax.torch_release.golden_file import COVERAGE_OF_MODE, GoldenRun
from kamcl_jax.torch_release.original import QUEUE_LENGTH, TorchOriginal
from kamcl_jax.torch_release.quantities import LOSSES, record

LEARNING_RATE, EPSILON = 2e-4, 1e-3
"""Adam's. With its usual epsilon, entries whose gradient is rounding noise move by the whole
learning rate, and no comparison after a step is well conditioned."""

POOL_LENGTHS = (2, 6, 7, 15, 64, 192)
"""Numbers of items: those of the towers' poolings, and two odd ones."""


def plan(
    seed: int,
    batch_size: int,
    caption_lengths: Sequence[str],
    epochs: Sequence[str],
    modes: Sequence[str],
) -> GoldenRun:
    """Reads what to run as it is written on the command line; see `GoldenRun`."""
    if seed < 0:
        raise GoldenFileError(f"a golden file's seed is 0 or more, not {seed}")
    if batch_size < 1 or QUEUE_LENGTH % batch_size:
        raise GoldenFileError(
            f"the original takes batches that divide its queues of {QUEUE_LENGTH} keys, "
            f"and {batch_size} does not"
        )
    lengths = _whole_numbers(caption_lengths)
    if len(lengths) != 2 or not 1 <= lengths[0] <= lengths[1]:
        raise GoldenFileError(
            "caption lengths are two numbers of words from 1, the shortest first, as 4,14, "
            f"not {','.join(caption_lengths)}"
        )
    steps = _whole_numbers(epochs)
    if not steps or min(steps) < 0:
        raise GoldenFileError(
            "epochs are one whole number from 0 for each training step, as 0,10,11,12, "
            f"not {','.join(epochs)}"
        )
    if not modes or not set(modes) <= COVERAGE_OF_MODE.keys():
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


def _whole_numbers(words: Sequence[str]) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words)
    except ValueError:
        return ()


def check_target(path: Path, checkout: Path) -> None:
    """Refuses what would fail only after minutes of work, and makes the file's folder."""
    if path.exists():
        raise GoldenFileError(f"{path} exists already, and nothing is written over it")
    check_checkout(checkout)
    path.parent.mkdir(parents=True, exist_ok=True)


def write(path: Path, checkout: Path, run: GoldenRun) -> tuple[str, ...]:
    """Runs the original in float64 and in float32 and writes the file.

    The names of tensors and gradients come from the original. It returns the third-party packages
    that are not installed and were replaced.
    """
    computed = []
    for dtype in (np.float64, np.float32):
        original = TorchOriginal(checkout, golden_inputs.VOCABULARY_SIZE, dtype=dtype)
        computed.append(record(original, run))
    golden_file.write(path, run, *computed)
    return original.stand_ins
