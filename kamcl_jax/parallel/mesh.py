"""The device mesh, where arrays lie on it, and what XLA is told about its devices.

The mesh has two axes, as in big_vision and MaxText: `data` splits batches, and `fsdp` splits
batches and shares out parameters (ZeRO, Rajbhandari et al. 2020). The compiler derives all
communication from the shardings that this module names.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Layout as ArrayLayout
from jax.experimental.layout import with_layout_constraint
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCH_AXES = ("data", "fsdp")


def make_mesh(data: int = -1, fsdp: int = 1, devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with the axes `data` and `fsdp`.

    Args:
      data: How many groups of devices there are, of which each holds all parameters; -1 takes
        all devices.
      fsdp: How many devices such a group has.
      devices: The devices to choose from, by default all; a smaller mesh takes the first ones.
    """
    devices = jax.devices() if devices is None else devices
    if data == -1:
        if len(devices) % fsdp:
            raise ValueError(f"fsdp = {fsdp} does not divide the {len(devices)} devices")
        data = len(devices) // fsdp
    size = data * fsdp
    if size > len(devices):
        raise ValueError(f"data x fsdp = {data} x {fsdp}, but there are {len(devices)} devices")
    if size < len(devices) and jax.process_count() > 1:
        raise ValueError(
            f"data x fsdp = {data} x {fsdp}, but all {len(devices)} devices of "
            f"{jax.process_count()} processes must take part"
        )
    # Auto: the compiler propagates shardings; the default, Explicit, rejects mixed products.
    types = (AxisType.Auto,) * len(BATCH_AXES)
    return jax.make_mesh((data, fsdp), BATCH_AXES, types, devices=devices[:size])


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where everything of a training lies."""

    mesh: Mesh
    state: Any  # a sharding for every leaf of the train state, or one for all of them
    shard_queues: bool = False  # each device holds its share of the queues' keys, not all of them

    @property
    def whole(self) -> NamedSharding:
        """A copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch(self) -> NamedSharding:
        """The first axis split over all devices."""
        return NamedSharding(self.mesh, PartitionSpec(BATCH_AXES))

    @property
    def negatives(self) -> NamedSharding:
        """Logits f32[B, K] of all queries with each device's share of the queue."""
        return NamedSharding(self.mesh, PartitionSpec(None, BATCH_AXES))

    def gathered(self, tree: Any) -> Any:
        """Makes parameters whole for a computation on a split batch; to be called inside `jit`."""
        # Left to itself, the compiler may move the activations instead.
        if self.mesh.shape["fsdp"] == 1:
            return tree
        return jax.lax.with_sharding_constraint(tree, self.whole)

    def traced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function that knows the mesh while it is traced, as a GPU's kernels ask for."""

        @wraps(function)
        def knowing(*arguments: Any) -> Any:
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return function(*arguments)

        return knowing

    def as_stored(self, tree: Any) -> Any:
        """Keeps parameters, and their gradients, in memory in the order of their axes until used.

        cuDNN wants the kernels of convolutions in another order. XLA would move all that is
        computed with one into that order, its moments and its momentum average included, and copy
        each of them back at the end of the step.
        """
        if self.mesh.devices.flat[0].platform != "gpu":
            return tree
        return jax.tree.map(
            lambda x: with_layout_constraint(x, ArrayLayout(tuple(range(x.ndim)))), tree
        )


def replicated(mesh: Mesh) -> Layout:
    """Returns the layout with a whole copy of the state on every device."""
    return Layout(mesh, NamedSharding(mesh, PartitionSpec()))


def parameter_spec(shape: tuple[int, ...], fsdp: int, min_size: int) -> PartitionSpec:
    """Returns how a tensor is split over `fsdp` devices: along its largest axis that fsdp divides.

    With fewer entries than `min_size` it stays whole.
    """
    divisible = [axis for axis, length in enumerate(shape) if length % fsdp == 0]
    if fsdp == 1 or not divisible or math.prod(shape) < min_size:
        return PartitionSpec()
    split = max(divisible, key=lambda axis: shape[axis])
    return PartitionSpec(*(None,) * split, "fsdp")


def local_rows(layout: Layout, batch_size: int) -> np.ndarray:
    """Returns the rows of a batch that this process's devices hold, int64[R], ascending."""
    places = layout.batch.addressable_devices_indices_map((batch_size,))
    held = [np.arange(batch_size)[index] for index in places.values()]
    return np.unique(np.concatenate(held))


def put_batch(layout: Layout, batch: Any) -> Any:
    """Makes global arrays, split over all devices, of this process's rows of a batch.

    The batch is a pytree of NumPy arrays with the rows that `local_rows` names.
    """
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(layout.batch, x), batch)


NO_YNN_CONVOLUTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
}
"""YNNPACK shares a convolution out to threads by 64 output channels, so the 64 channels of
ResNet-18's first stage run on one core, while Eigen uses all cores. Products and sums stay with
YNNPACK, which is faster for a step of KAMCL's. The large products of a vision transformer are not:
XLA's own choice takes a sixth less for them.
"""


def compiler_options(mesh: Mesh, *, convolves: bool = True) -> dict[str, str] | None:
    """Returns the `compiler_options` of `jax.jit` for the devices of a mesh, if they need any.

    Args:
      mesh: The devices.
      convolves: Whether the model has convolutions that its speed depends on.
    """
    if not convolves:
        return None
    # In double precision Eigen's convolutions are 18 times slower.
    double = jnp.result_type(float) == jnp.float64
    cpu = mesh.devices.flat[0].platform == "cpu"
    return NO_YNN_CONVOLUTIONS if cpu and not double and _xla_knows_options() else None


@cache
def _xla_knows_options() -> bool:
    """Whether this release of XLA has the options, which are no stable interface."""
    try:
        jax.jit(lambda x: x, compiler_options=NO_YNN_CONVOLUTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def runs_triton(device: Any) -> bool:
    """Returns whether Triton compiles for a device: a GPU of NVIDIA's since Ampere, or of AMD's."""
    if device.platform != "gpu":
        return False
    capability = str(device.compute_capability)  # like "9.0" or "gfx90a"
    return capability.startswith("gfx") or float(capability) >= 8
