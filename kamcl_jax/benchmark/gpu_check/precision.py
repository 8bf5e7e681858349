"""Part (b), second half: how far each precision is from the original's float64 numbers."""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from kamcl_jax.benchmark.gpu_check.task import Task, changed, golden_config
from kamcl_jax.torch_release import golden_check, golden_file
from kamcl_jax.torch_release.tolerances import Row

PRECISIONS = {
    "float32": ("float32", "highest"),
    "TF32": ("float32", "default"),
    "bfloat16": ("bfloat16", "default"),
}
"""Name -> `config.dtype`, and the precision of JAX's matrix products: by default, a GPU multiplies
float32 in TF32."""

GROUPS = {
    "embeddings": ("visual", "text"),
    "concepts": ("visual_concept", "text_concept"),
    "cosines": ("eval/sims",),
    "losses": ("losses",),
    "first step's gradients": ("step0/grad_norms",),
    "second step's gradients": ("step1/grad_norms",),
    "parameters after the steps": ("l2",),
}
"""What is told of a precision -> the ends of the names of its quantities."""


def measure(task: Task) -> None:
    """Computes the golden file's numbers in all precisions at once: compiling takes longest."""
    golden = without(golden_file.read(task.golden), whole=task.sizes.whole_golden)
    with ThreadPoolExecutor(len(PRECISIONS)) as pool:
        running = {name: pool.submit(errors, golden, task, name) for name in PRECISIONS}
        for name, future in running.items():
            task.attempt(name, future.result)


def without(golden: Mapping[str, np.ndarray], *, whole: bool) -> dict[str, np.ndarray]:
    """Leaves out the release's momentum, a second compilation, or all training steps."""
    left_out = ("release/",) if whole else ("release/", "paper/")
    return {n: v for n, v in golden.items() if not n.removeprefix("noise/").startswith(left_out)}


def errors(golden: Mapping[str, np.ndarray], task: Task, name: str) -> dict[str, Any]:
    """Returns the largest relative error of each of `GROUPS` in one of `PRECISIONS`."""
    dtype, products = PRECISIONS[name]
    config = changed(golden_config(task.config), dtype=dtype)
    started = time.perf_counter()
    with jax.default_matmul_precision(products):
        rows = golden_check.compute_and_compare(golden, config, "float32")
    return {**summary(rows), "seconds": time.perf_counter() - started}


def summary(rows: Iterable[Row]) -> dict[str, Any]:
    """Returns the largest relative errors by group, and what is beyond float32's tolerance."""
    rows = list(rows)
    of_group = {
        group: [row.max_relative for row in rows if _is_of(row.name, ends)]
        for group, ends in GROUPS.items()
    }
    return {
        "errors": {group: max(found) for group, found in of_group.items() if found},
        "quantities": len(rows),
        "beyond_float32_tolerance": [row.name for row in rows if not row.passes],
    }


def _is_of(name: str, ends: tuple[str, ...]) -> bool:
    return any(f"/{name}".endswith(f"/{end}") for end in ends)
