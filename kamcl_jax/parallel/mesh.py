"""The device mesh and where arrays lie on it.

The mesh has two axes, as in big_vision and MaxText: `data` splits batches, `fsdp` splits batches
and shares out parameters (ZeRO, Rajbhandari et al. 2020). GSPMD derives all communication from the
shardings said here.
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCH_AXES = ("data", "fsdp")
QUEUES = ("replicated", "sharded")


def make_mesh(data: int = -1, fsdp: int = 1, devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with the axes `data` and `fsdp`.

    Args:
      data: groups of devices that hold all parameters between them; -1 takes all devices.
      fsdp: devices in such a group.
      devices: to choose from, all if None; a smaller mesh takes the first ones.

    Raises:
      ValueError: there are fewer devices than the mesh has places, or data is -1 and fsdp does not
        divide them, or a mesh leaves out devices of other processes.
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
    """Where everything of a training lies.

    Attributes:
      mesh: from `make_mesh`.
      state: a sharding for every leaf of the train state, or one for all of them.
      shard_queues: whether each device holds its share of the queues' keys, not all of them.
    """

    mesh: Mesh
    state: Any
    shard_queues: bool = False

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
        """Inside of `jit`: makes parameters whole for a computation that has a split batch.

        Said outright: left to itself the compiler may move activations instead.
        """
        if self.mesh.shape["fsdp"] == 1:
            return tree
        return jax.lax.with_sharding_constraint(tree, self.whole)


def replicated(mesh: Mesh) -> Layout:
    """Returns the layout with a whole copy of the state on every device."""
    return Layout(mesh, NamedSharding(mesh, PartitionSpec()))


def parameter_spec(shape: tuple[int, ...], fsdp: int, min_size: int) -> PartitionSpec:
    """Returns how a tensor is split over `fsdp`: along its largest axis that fsdp divides.

    Args:
      shape: of the tensor.
      fsdp: devices that share it.
      min_size: entries below which it stays whole.
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
    """Makes global arrays of this process's rows of a batch (`local_rows`), split over the devices.

    Args:
      layout: of the training.
      batch: pytree of NumPy arrays.

    Returns:
      The same tree of `jax.Array`s over all processes' devices.
    """
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(layout.batch, x), batch)
