"""Where each tensor of a PyTorch `state_dict` lies among Flax variables, and the way both ways.

A layout is a dictionary in the order of the state_dict. You put layouts together as the modules
that they describe: `{**named("conv1", convolution("conv1")), **named("bn1", batch_norm("bn1"))}`.
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
    """Where one tensor lies in the variables.

    Attributes:
      path: The names down the tree; the collection (`params` or `batch_stats`) comes first.
      axes: The transposition from PyTorch's axes to Flax's; None leaves the axes as they are.
      index: Where the tensor lies in a leaf that holds several: what NumPy takes as an index, a
        row or slices. The default is the whole leaf.
      shape: The tensor's shape, where its axes are merged in the leaf or have other lengths of 1;
        None where transposing is enough.
    """

    path: tuple[str, ...]
    axes: tuple[int, ...] | None = None
    index: Any = ...
    shape: tuple[int, ...] | None = None

    def to_torch(self, leaf: np.ndarray) -> np.ndarray:
        """Takes the tensor out of its leaf."""
        value = leaf[self.index]
        if self.axes is not None:
            value = value.transpose(np.argsort(self.axes))
        return value if self.shape is None else value.reshape(self.shape)

    def put_into(self, leaf: np.ndarray, tensor: np.ndarray) -> None:
        """Writes the tensor to its place in the leaf."""
        part = tensor if self.axes is None else tensor.transpose(self.axes)
        leaf[self.index] = part.reshape(leaf[self.index].shape)

    def torch_shape(self, leaf_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the tensor's shape, given that of its leaf."""
        return self.to_torch(np.broadcast_to(np.float32(0), leaf_shape)).shape


@dataclasses.dataclass(frozen=True)
class Spare:
    """A tensor that PyTorch stores and that takes no part in the computation.

    Attributes:
      shape: The shape in which PyTorch stores it.
      fill: The number that we write there; an int makes an i64 tensor, a float an f32 one.
    """

    shape: tuple[int, ...]
    fill: float | int = 0.0


@dataclasses.dataclass(frozen=True)
class BatchCount:
    """PyTorch's `num_batches_tracked`, i64[]: the training batches that a BatchNorm has seen."""


Layout = dict[str, Place | Spare | BatchCount]


def named(prefix: str, layout: Layout) -> Layout:
    """Puts the name of a PyTorch module before those of its tensors."""
    return {f"{prefix}.{name}": entry for name, entry in layout.items()}


def below(path: tuple[str, ...], layout: Layout) -> Layout:
    """Moves a layout's places down the tree: `path` comes between collection and module."""
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


def convolution(*path: str, bias: bool = False) -> Layout:
    """Returns the layout of a `torch.nn.Conv2d`."""
    layout: Layout = {"weight": Place(("params", *path, "kernel"), (2, 3, 1, 0))}
    if bias:
        layout["bias"] = Place(("params", *path, "bias"))
    return layout


def layer_norm(*path: str) -> Layout:
    """Returns the layout of a `torch.nn.LayerNorm` that is the `linen.LayerNorm` at `path`."""
    return {
        "weight": Place(("params", *path, "scale")),
        "bias": Place(("params", *path, "bias")),
    }


def batch_norm(*path: str) -> Layout:
    """Returns the layout of a `torch.nn.BatchNorm2d` with its statistics."""
    return {
        "weight": Place(("params", *path, "scale")),
        "bias": Place(("params", *path, "bias")),
        "running_mean": Place(("batch_stats", *path, "mean")),
        "running_var": Place(("batch_stats", *path, "var")),
        "num_batches_tracked": BatchCount(),
    }


def parameter_paths(layout: Layout) -> list[tuple[str, ...]]:
    """Lists the paths of the parameters below `params`; a stacked leaf comes once a tensor."""
    return [
        entry.path[1:]
        for entry in layout.values()
        if isinstance(entry, Place) and entry.path[0] == "params"
    ]


def from_torch(tensors: Mapping[str, np.ndarray], layout: Layout, like: Tree, source: str) -> Tree:
    """Builds Flax variables, f32 NumPy arrays, from PyTorch tensors.

    Args:
      tensors: A state_dict. Tensors that take no part may be absent.
      layout: Where the tensors go.
      like: A tree of arrays or `jax.ShapeDtypeStruct`s; the layout fills every leaf.
      source: What an error calls the origin of the tensors.
    """
    leaves = traverse_util.flatten_dict(like)
    places = {name: entry for name, entry in layout.items() if isinstance(entry, Place)}
    _check_names([name for name in places if name not in tensors], f"{source} lacks")
    unknown = [name for name in tensors if name not in layout]
    _check_names(unknown, f"{source} is of another model: it has")
    values: dict[tuple[str, ...], np.ndarray] = {}
    for name, place in places.items():
        shape = leaves[place.path].shape
        tensor = checked_tensor(name, tensors[name], place.torch_shape(shape), source)
        place.put_into(values.setdefault(place.path, np.empty(shape, np.float32)), tensor)
    return traverse_util.unflatten_dict({path: values[path] for path in leaves})


def to_torch(variables: Tree, layout: Layout, batch_count: int = 0) -> StateDict:
    """Returns Flax variables as PyTorch tensors, in the layout's order.

    `batch_count` stands in every `num_batches_tracked`.
    """
    leaves = {
        path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(variables).items()
    }
    tensors: StateDict = {}
    for name, entry in layout.items():
        if isinstance(entry, Place):
            tensors[name] = np.asarray(entry.to_torch(leaves[entry.path]), order="C")
        elif isinstance(entry, Spare):
            dtype = np.int64 if isinstance(entry.fill, int) else np.float32
            tensors[name] = np.full(entry.shape, entry.fill, dtype)
        else:
            tensors[name] = np.array(batch_count, np.int64)
    return tensors


def torch_shapes(layout: Layout, like: Tree) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each of the layout's tensors; `like` is as in `from_torch`."""
    leaves = traverse_util.flatten_dict(like)

    def shape(entry: Place | Spare | BatchCount) -> tuple[int, ...]:
        if isinstance(entry, Place):
            return entry.torch_shape(leaves[entry.path].shape)
        return entry.shape if isinstance(entry, Spare) else ()

    return {name: shape(entry) for name, entry in layout.items()}


def _check_names(refused: list[str], what: str) -> None:
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise PretrainedError(f"{what} the tensor {refused[0]}{more}")


def checked_tensor(
    name: str, tensor: np.ndarray, shape: tuple[int, ...], source: str
) -> np.ndarray:
    """Returns a tensor in f32 if it has that shape and holds finite floating-point numbers.

    An error calls it `name`, and its origin `source`.
    """
    if not np.issubdtype(tensor.dtype, np.floating):
        raise PretrainedError(
            f"the tensor {name} of {source} is {tensor.dtype}, not floating-point"
        )
    if tensor.shape != shape:
        raise PretrainedError(
            f"the tensor {name} of {source} has the shape {list(tensor.shape)}; "
            f"the model needs {list(shape)}"
        )
    with np.errstate(over="ignore"):
        tensor = tensor.astype(np.float32, copy=False)
    if not np.isfinite(tensor).all():
        raise PretrainedError(f"the tensor {name} of {source} holds values that are not finite")
    return tensor
