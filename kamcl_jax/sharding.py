"""The device mesh and where arrays lie on it."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a one-dimensional mesh with the axis `data` over the devices (all, if None)."""
    devices = jax.devices() if devices is None else devices
    # Auto: the compiler propagates shardings; the default, Explicit, rejects mixed products.
    return jax.make_mesh((len(devices),), (DATA_AXIS,), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device: the train state."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The first axis split over `data`: a batch."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def put_batch(mesh: Mesh, batch: Any) -> Any:
    """Makes global arrays of this process's share of a batch, split over the first axis.

    Args:
      mesh: from `make_mesh`.
      batch: pytree of NumPy arrays, this process's rows.

    Returns:
      The same tree of `jax.Array`s over all processes' devices.
    """
    sharding = over_batch(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
