"""Where each tensor of a PyTorch `state_dict` lies in a tree of Flax variables, and the way there.

A layout is a dictionary in the order of the state_dict. Layouts of modules are put together like
the modules: `{**named("conv1", convolution("conv1")), **named("bn1", batch_norm("bn1"))}`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from kamcl_jax.errors import PretrainedError

Tree = Any
"""Nested dictionaries of arrays, as Flax keeps variables."""

StateDict = dict[str, np.ndarray]
"""Tensors under PyTorch's names, in PyTorch's layout and order."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one tensor lies.

    Attributes:
      path: names down the tree, the collection (`params`, `batch_stats`) first.
      axes: transposition from PyTorch's axes to Flax's; None leaves them.
      row: the tensor's index along the first axis of a leaf that stacks several; None: it is the
        whole leaf.
    """

    path: tuple[str, ...]
    axes: tuple[int, ...] | None = None
    row: int | None = None

    def to_torch(self, leaf: np.ndarray) -> np.ndarray:
        """Takes the tensor out of its leaf."""
        value = leaf if self.row is None else leaf[self.row]
        return value if self.axes is None else value.transpose(np.argsort(self.axes))

    def to_flax(self, tensor: np.ndarray) -> np.ndarray:
        """Brings the tensor into the layout of its leaf, or of its row there."""
        return tensor if self.axes is None else tensor.transpose(self.axes)

    def torch_shape(self, leaf_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the tensor's shape, given that of its leaf."""
        shape = leaf_shape if self.row is None else leaf_shape[1:]
        return shape if self.axes is None else tuple(shape[axis] for axis in np.argsort(self.axes))


@dataclasses.dataclass(frozen=True)
class Spare:
    """A tensor that PyTorch stores and that takes no part in the computation.

    Attributes:
      shape: as PyTorch stores it.
      fill: what stands there when we write it; an int makes an i64 tensor, a float an f32 one.
    """

    shape: tuple[int, ...]
    fill: float | int = 0.0

    @property
    def dtype(self) -> type:
        """Returns the tensor's NumPy type."""
        return np.int64 if isinstance(self.fill, int) else np.float32


@dataclasses.dataclass(frozen=True)
class BatchCount:
    """PyTorch's `num_batches_tracked`, i64[]: training batches that a BatchNorm has seen."""


Layout = dict[str, Place | Spare | BatchCount]


def named(prefix: str, layout: Layout) -> Layout:
    """Puts a PyTorch module's name before those of its tensors."""
    return {f"{prefix}.{name}": entry for name, entry in layout.items()}


def below(path: tuple[str, ...], layout: Layout) -> Layout:
    """Moves a layout's places down the tree: `path` is put between collection and module."""
    return {
        name: dataclasses.replace(entry, path=(entry.path[0], *path, *entry.path[1:]))
        if isinstance(entry, Place)
        else entry
        for name, entry in layout.items()
    }


def linear(*path: str, bias: bool = True) -> Layout:
    """Returns the layout of a `torch.nn.Linear` that is the `linen.Dense` at `path`."""
    layout: Layout = {"weight": Place(("params", *path, "kernel"), (1, 0))}
    if bias:
        layout["bias"] = Place(("params", *path, "bias"))
    return layout


def convolution(*path: str) -> Layout:
    """Returns the layout of a `torch.nn.Conv2d` without bias."""
    return {"weight": Place(("params", *path, "kernel"), (2, 3, 1, 0))}


def batch_norm(*path: str) -> Layout:
    """Returns the layout of a `torch.nn.BatchNorm2d`, its statistics included."""
    return {
        "weight": Place(("params", *path, "scale")),
        "bias": Place(("params", *path, "bias")),
        "running_mean": Place(("batch_stats", *path, "mean")),
        "running_var": Place(("batch_stats", *path, "var")),
        "num_batches_tracked": BatchCount(),
    }


def from_torch(tensors: Mapping[str, np.ndarray], layout: Layout, like: Tree, source: str) -> Tree:
    """Builds Flax variables from PyTorch tensors.

    Args:
      tensors: a state_dict. Tensors that take no part may be absent.
      layout: where they go.
      like: tree of arrays or `jax.ShapeDtypeStruct`s, every leaf of which the layout fills.
      source: what to call the tensors' origin in errors.

    Returns:
      A tree like `like` of f32 NumPy arrays.

    Raises:
      PretrainedError: a tensor is missing, unknown, of another shape, not floating-point or not
        finite.
    """
    leaves = traverse_util.flatten_dict(like)
    places = {name: entry for name, entry in layout.items() if isinstance(entry, Place)}
    _refuse_other_names(tensors, layout, places, source)
    values: dict[tuple[str, ...], np.ndarray] = {}
    for name, place in places.items():
        shape = tuple(leaves[place.path].shape)
        tensor = checked(name, tensors[name], place.torch_shape(shape), source)
        if place.path not in values:
            values[place.path] = np.empty(shape, np.float32)
        rows = slice(None) if place.row is None else place.row
        values[place.path][rows] = place.to_flax(tensor)
    return traverse_util.unflatten_dict({path: values[path] for path in leaves})


def to_torch(variables: Tree, layout: Layout, batch_count: int = 0) -> StateDict:
    """Returns Flax variables as PyTorch tensors, in the layout's order.

    Args:
      variables: tree of arrays.
      layout: what goes where.
      batch_count: stands in every `num_batches_tracked`.
    """
    leaves = {
        path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(variables).items()
    }
    tensors: StateDict = {}
    for name, entry in layout.items():
        if isinstance(entry, Place):
            tensors[name] = np.ascontiguousarray(entry.to_torch(leaves[entry.path]))
        elif isinstance(entry, Spare):
            tensors[name] = np.full(entry.shape, entry.fill, entry.dtype)
        else:
            tensors[name] = np.array(batch_count, np.int64)
    return tensors


def shapes(layout: Layout, like: Tree) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each of the layout's tensors; `like` as in `from_torch`."""
    leaves = traverse_util.flatten_dict(like)

    def shape(entry):
        if isinstance(entry, Place):
            return entry.torch_shape(tuple(leaves[entry.path].shape))
        return entry.shape if isinstance(entry, Spare) else ()

    return {name: shape(entry) for name, entry in layout.items()}


def _refuse_other_names(
    tensors: Mapping[str, Any], layout: Layout, places: Mapping[str, Place], source: str
) -> None:
    missing = [name for name in places if name not in tensors]
    unknown = [name for name in tensors if name not in layout]
    for names, what in ((missing, "lacks"), (unknown, "is of another model: it has")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise PretrainedError(f"{source} {what} the tensor {names[0]}{more}")


def checked(name: str, tensor: np.ndarray, shape: tuple[int, ...], source: str) -> np.ndarray:
    """Returns a tensor that is as it must be, in f32.

    Args:
      name: what to call it in errors.
      tensor: the array.
      shape: that it must have.
      source: what to call its origin in errors.

    Raises:
      PretrainedError: it has another shape, is not floating-point or, in f32, not finite.
    """
    if not np.issubdtype(tensor.dtype, np.floating):
        raise PretrainedError(
            f"the tensor {name} of {source} is {tensor.dtype}, not floating-point"
        )
    if tensor.shape != shape:
        raise PretrainedError(
            f"the tensor {name} of {source} has the shape {list(tensor.shape)}; "
            f"the config's model needs {list(shape)}"
        )
    with np.errstate(over="ignore"):
        tensor = tensor.astype(np.float32, copy=False)
    if not np.isfinite(tensor).all():
        raise PretrainedError(f"the tensor {name} of {source} holds values that are not finite")
    return tensor
