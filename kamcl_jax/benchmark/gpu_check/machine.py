"""Part (a): what the machine is."""

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kamcl_jax.benchmark import roofline, trials
from kamcl_jax.benchmark.gpu_check.task import Task

_NAMED = ("flax", "numpy", "optax", "orbax-checkpoint", "torch", "torchvision", "triton")
_FAMILIES = ("jax", "nvidia-")
_DRIVER = "name,driver_version,memory.total,clocks.max.sm,power.limit"


def measure(task: Task) -> None:
    """Writes down devices, driver, versions, and how fast matrices multiply and bytes move."""
    task.attempt("device", device)
    task.attempt("driver", driver)
    task.attempt("versions", versions)
    task.attempt("PyTorch", torch_says)
    for dtype in (jnp.float32, jnp.bfloat16):
        task.attempt(f"rates in {jnp.dtype(dtype).name}", partial(rates, dtype))


def device() -> dict[str, Any]:
    """Returns what JAX says of the first device, and what the host is.

    `bytes` is the memory that JAX may use, None where it does not say.
    """
    first = jax.devices()[0]
    stats = first.memory_stats() or {}
    return {
        "kind": first.device_kind,
        "platform": first.platform,
        "devices": len(jax.devices()),
        "bytes": stats.get("bytes_limit"),
        "host": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def driver() -> dict[str, str] | str:
    """Returns what the driver's own tool says, or that there is none."""
    command = ["nvidia-smi", f"--query-gpu={_DRIVER}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except FileNotFoundError:
        return "there is no nvidia-smi"
    return dict(zip(_DRIVER.split(","), done.stdout.splitlines()[0].split(", "), strict=False))


def versions() -> dict[str, str]:
    """Returns the releases of what computes, CUDA's packages among them."""
    found = {
        (distribution.metadata["Name"] or "").lower(): distribution.version
        for distribution in importlib.metadata.distributions()
    }
    return {n: v for n, v in sorted(found.items()) if n in _NAMED or n.startswith(_FAMILIES)}


def torch_says() -> dict[str, Any] | str:
    """Returns what PyTorch was built for, and the GPU that it sees."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    import torch

    seen = torch.cuda.is_available()
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "gpu": torch.cuda.get_device_name() if seen else None,
    }


def rates(dtype: Any) -> dict[str, float]:
    """Returns the rate of a large matrix product in a dtype, and that of a copy."""
    budget = trials.Budget(rounds=3, seconds=0.5, most_seconds=5)
    timings = trials.alternate(roofline.machine_actions(dtype), budget)
    return {
        "flops_per_second": roofline.flops_per_second(timings[roofline.MATMUL].median),
        "bytes_per_second": roofline.bytes_per_second(timings[roofline.COPY].median),
    }
