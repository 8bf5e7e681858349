"""Accelerators that are not there: what their data sheets say, and how to compile for them."""

import dataclasses
import importlib.util
import os
from typing import Any

from jax.experimental import topologies

from kamcl_jax.errors import AcceleratorError


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """What a data sheet says about a device; speeds are bytes a second.

    Attributes:
      platform: JAX's name of it, "cuda" or "tpu".
      flops: Dense products and sums a second, by the dtype of the operands: "bfloat16"; "float32"
        at JAX's default precision, which rounds the operands (to TF32 on NVIDIA's GPUs, to
        bfloat16 on TPUs); "float32 highest" without that.
      simple: Other operations a second, like a comparison or a sum.
      memory: Bytes.
      memory_speed: Of the device's own memory.
      network: That a device sends to others of its host.
      network_across: That it sends to other hosts.
      devices_per_host: How many share a host.
      launch: Seconds that one more kernel takes whatever it does. No data sheet has it.
      plugins: The modules that hold the compiler; one of them has to be installed.
      installed_by: The command that installs them, and where.
    """

    platform: str
    flops: dict[str, float]
    simple: float
    memory: float
    memory_speed: float
    network: float
    network_across: float
    devices_per_host: int
    launch: float
    plugins: tuple[str, ...]
    installed_by: str


ACCELERATORS = {
    # NVIDIA H100 SXM and DGX H100 data sheets, without sparsity: 989 teraFLOPS (TF32: 495; without
    # tensor cores: 67, where a multiplication and a sum count as two operations but are one
    # instruction), 80 GB, 3.35 TB/s, NVLink 900 GB/s both ways, a ConnectX-7 of 400 Gb/s a GPU, 8
    # GPUs a host. A launch takes 2 to 4 us from the host, 1 to 2 us as a part of a CUDA graph.
    "h100": Accelerator(
        platform="cuda",
        flops={"bfloat16": 989e12, "float32": 495e12, "float32 highest": 67e12},
        simple=67e12 / 2,
        memory=80e9,
        memory_speed=3350e9,
        network=450e9,
        network_across=50e9,
        devices_per_host=8,
        launch=2.5e-6,
        plugins=("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12"),
        installed_by="`make plan-gpu` installs it in .venv-gpu",
    ),
    # https://cloud.google.com/tpu/docs/v5e: 197 TFLOPs, 16 GB, 819 GBps, 400 GBps both ways, 8
    # chips a host. Float32 takes six bfloat16 products at the highest precision. Of the vector unit
    # the page says nothing: this is 8 x 128 lanes with 4 units each at 1.5 GHz. All operations of a
    # step are one program there, so that a further one costs less: this is a guess.
    "v5e": Accelerator(
        platform="tpu",
        flops={"bfloat16": 197e12, "float32": 197e12, "float32 highest": 197e12 / 6},
        simple=6e12,
        memory=16e9,
        memory_speed=819e9,
        network=200e9,
        network_across=200e9,
        devices_per_host=8,
        launch=0.5e-6,
        plugins=("libtpu",),
        installed_by='`pip install "jax[tpu]"` installs it',
    ),
}

# The facts that XLA asks a GPU for, of an H100 with 80 GB (SXM), CUDA 13.0 and cuDNN 9.12.
_H100_FACTS = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  l2_cache_size: 52428800
  device_memory_size: 84929347584
  memory_bandwidth: 3352320000000
}
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
runtime_version { major: 13 minor: 0 patch: 0 }
dnn_version_info { major: 9 minor: 12 }
"""

_V5E_SLICES = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")


def compiler_options(name: str) -> dict[str, Any]:
    """Returns the options of `jax.stages.Lowered.compile` for an accelerator that is not there."""
    if ACCELERATORS[name].platform != "cuda":
        return {}
    # Both would time kernels on the device.
    return {"xla_gpu_enable_triton_gemm": False, "xla_gpu_autotune_level": 0}


def has_compiler(name: str) -> bool:
    """Returns whether the compiler of an accelerator is installed."""
    return any(_installed(module) for module in ACCELERATORS[name].plugins)


def absent_devices(name: str, count: int) -> list[Any]:
    """Returns devices to compile for that need not be there.

    Without a GPU's driver JAX has to be told so (`jax_platforms` is "cpu") before it looks for
    devices: otherwise it finds that the driver is missing, and leaves the compiler out, too.

    Args:
      name: One of `ACCELERATORS`.
      count: How many devices.

    Raises:
      AcceleratorError: The compiler of the accelerator is not installed, or knows no such devices.
    """
    device = ACCELERATORS[name]
    if not has_compiler(name):
        raise AcceleratorError(f"the compiler for {name} is not installed: {device.installed_by}")
    try:
        if device.platform == "cuda":
            hosts = -(-count // device.devices_per_host)
            shape = f"1x{hosts}x{-(-count // hosts)}"
            found = topologies.get_topology_desc(
                platform="cuda", target_config=_H100_FACTS, topology=shape
            )
        else:
            os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU to ask
            found = topologies.get_topology_desc(
                platform="tpu", topology_name=f"{name}:{slice_of_pod(count)}"
            )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise AcceleratorError(f"no program can be compiled for {name}: {reason}") from None
    return list(found.devices)[:count]


def slice_of_pod(count: int) -> str:
    """Returns the smallest slice of a pod that has so many chips."""
    for shape in _V5E_SLICES:
        width, height = map(int, shape.split("x"))
        if width * height >= count:
            return shape
    raise AcceleratorError(f"a v5e pod has 256 chips, not {count}")


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
