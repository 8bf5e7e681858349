"""Compares what our program computes with a golden file of the PyTorch original."""

from collections.abc import Mapping, Sequence

import jax
import ml_collections
import numpy as np

from kamcl_jax.config import checks
from kamcl_jax.torch_release import golden_file
from kamcl_jax.torch_release.our_program import OurProgram, config_of_run
from kamcl_jax.torch_release.quantities import record
from kamcl_jax.torch_release.tolerances import NOISE_MULTIPLE, Row, compare

FLOAT64_NOISE_LIMIT = 1e-4
"""Share of a magnitude that the noise may add to its tolerance in float64.

Without it a noise of 7 % would let an error of 70 % pass, where ours is below 1e-6.
"""

SHARED_NOISE_MULTIPLE = 30.0
"""`NOISE_MULTIPLE` for tensors in float32, see `compute_and_compare`."""


def compute_and_compare(
    golden: Mapping[str, np.ndarray], config: ml_collections.ConfigDict, precision: str
) -> list[Row]:
    """Computes everything in a golden file and compares; there is one row for each quantity.

    The golden values are float64. So are ours with that precision, and then every tolerance means
    what it says. In float32 two features closer than rounding trade places in a sorted list, a
    hardest negative or a ReLU flips, and gradients change by jumps, more so after every step: the
    noise of one run of the original tells little about that of another in the same tensor. There a
    tensor's tolerance is `SHARED_NOISE_MULTIPLE` times the largest relative noise among all tensors
    of its encoder.
    """
    run = golden_file.run_of(golden)
    checks.check_config(config_of_run(config, run))
    with jax.enable_x64(precision == "float64"):
        ours = record(OurProgram(config, getattr(np, precision)), run)
    return compare_all(ours, golden, precision)


def compare_all(
    ours: Mapping[str, np.ndarray], golden: Mapping[str, np.ndarray], precision: str
) -> list[Row]:
    """Compares everything in a golden file with what we have computed in that precision."""
    rows = []
    for name in golden_file.quantity_names(golden):
        noise, multiple = golden.get(f"noise/{name}"), NOISE_MULTIPLE
        tensors = golden_file.tensor_names(name, golden)
        if precision == "float32" and tensors is not None and noise is not None and noise.ndim:
            noise, multiple = shared_noise(golden[name], noise, tensors), SHARED_NOISE_MULTIPLE
        limit = FLOAT64_NOISE_LIMIT if precision == "float64" else None
        rows.append(compare(name, ours.get(name), golden[name], noise, multiple, limit))
    return rows


def shared_noise(golden: np.ndarray, noise: np.ndarray, tensors: Sequence[str]) -> np.ndarray:
    """Gives all tensors of an encoder the largest relative noise among them.

    `golden` is a quantity of N tensors, f64[N] or f64[N, M]; `noise` and what is returned are
    absolute, f64[N].
    """
    magnitude = np.abs(golden).reshape(len(noise), -1).max(axis=1)
    relative = noise / np.where(magnitude > 0, magnitude, np.inf)
    encoders = np.array([tensor.partition(".")[0].rstrip("QK") for tensor in tensors])
    largest = {encoder: relative[encoders == encoder].max() for encoder in encoders}
    return magnitude * [largest[encoder] for encoder in encoders]


def name_failed_tensors(row: Row, golden: Mapping[str, np.ndarray], shown: int = 5) -> str:
    """Names the tensors beyond their tolerance in a failed row, "" where its rows are none."""
    names = golden_file.tensor_names(row.name, golden)
    if names is None:
        return ""
    failed = [names[index] for index in row.failed]
    more = f" and {len(failed) - shown} more" if len(failed) > shown else ""
    return f"{row.name}: {', '.join(failed[:shown])}{more}"
