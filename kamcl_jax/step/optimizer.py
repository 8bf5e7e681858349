"""Muon for kernels and Adam for the rest, what decays, and learning rates of single parameters."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import optax
from optax import contrib

from kamcl_jax.models.clip import depths
from kamcl_jax.models.towers import CONCEPT_HEAD

Params = Any

_AXES = {
    2: contrib.MuonDimensionNumbers(reduction_axis=0, output_axis=1),
    3: contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2),
    4: contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3),
}

_INTO_HEADS = contrib.MuonDimensionNumbers(reduction_axis=0, output_axis=(1, 2))
_OUT_OF_HEADS = contrib.MuonDimensionNumbers(reduction_axis=(0, 1), output_axis=2)
_AXES_OF_ATTENTION = {
    **dict.fromkeys(("query", "key", "value"), _INTO_HEADS),
    "out": _OUT_OF_HEADS,
}
"""Those of the kernels with three axes in `linen.MultiHeadDotProductAttention`, by their layers."""


def muon(
    learning_rate: optax.ScalarOrSchedule, epsilon: float, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """Returns Muon (Jordan 2024) for kernels, Adam with Nesterov's momentum for the rest.

    Muon gives all directions of a kernel's update the same length. The update is scaled to the mean
    square that Adam's usually has (Liu et al. 2025), so that one learning rate serves both.

    Args:
      learning_rate: Of both.
      epsilon: What keeps the numbers that both divide by above 0.
      weight_decay: How much of a kernel a step takes away, times the learning rate. Nothing else
        decays.
    """
    return contrib.muon(
        learning_rate,
        weight_decay=weight_decay,
        eps=epsilon,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=kernel_axes,
    )


def kernel_axes(params: Params) -> Any:
    """Returns which axes of each kernel are its inputs and its outputs; None where it is no kernel.

    A kernel is called `kernel`, or ends so. With two axes it is [in, out], with four it is that of
    a convolution, [height, width, in, out], and with three a stack of matrices, [number, in, out],
    or in Flax's attention [in, heads, out / heads] or [heads, in / heads, out].
    """

    def axes(path: tuple[Any, ...], leaf: jax.Array) -> contrib.MuonDimensionNumbers | None:
        if not _name(path).endswith("kernel"):
            return None
        layer = _name(path[:-1])
        if leaf.ndim == 3 and layer in _AXES_OF_ATTENTION:
            return _AXES_OF_ATTENTION[layer]
        return _AXES.get(leaf.ndim)

    return jax.tree_util.tree_map_with_path(axes, params)


def _name(path: tuple[Any, ...]) -> str:
    """Returns the last name of a path."""
    return jax.tree_util.keystr(path[-1:], simple=True)


def decays(params: Params) -> Any:
    """Returns which parameters AdamW's weight decay shrinks: all with several axes but biases.

    These are matrices, kernels, positions, embeddings and the query that SigLIP pools with. No bias
    is among them, nor what a normalisation learns, a gate, a class token, or the scale of the
    logits. It is the rule that open_clip has for these models.

    Args:
      params: The parameters, or what of them trains.

    Returns:
      A tree of the same structure, of bools.
    """

    def decays(path: tuple[Any, ...], leaf: jax.Array) -> bool:
        # The biases of a GRU's gates are stacked, and so have two axes.
        return leaf.ndim > 1 and not _name(path).endswith("bias")

    return jax.tree_util.tree_map_with_path(decays, params)


def scaled(factors: Callable[[Params], Any]) -> optax.GradientTransformation:
    """Returns what gives each parameter its own share of the learning rate.

    It multiplies updates, so it comes last in a chain: after Adam, which would undo it, and with
    the weight decay, as another learning rate would. It has no state.

    Args:
      factors: It says of the parameters that train what to multiply the learning rate of each by;
        it is given the updates, which have the same paths.
    """

    def scale(updates: optax.Updates, _: Params) -> optax.Updates:
        return jax.tree.map(lambda update, factor: update * factor, updates, factors(updates))

    return optax.stateless(scale)


def rate_factors(
    params: Params,
    layer_decay: float,
    new_rate: float = 1.0,
    new: Collection[str] = (CONCEPT_HEAD,),
) -> Any:
    """Returns what the learning rate of each parameter of a fine-tuned model is multiplied by.

    Args:
      params: Those that train.
      layer_decay: A block has this share of the learning rate of the block behind it (Bao et al.
        2022).
      new_rate: The factor of what the published weights lack.
      new: The names of these parts.

    Returns:
      A tree of the same structure, of floats.
    """

    def factor(path: tuple[Any, ...], depth: int) -> float:
        names = {jax.tree_util.keystr((key,), simple=True) for key in path}
        return new_rate if names.intersection(new) else layer_decay**depth

    return jax.tree_util.tree_map_with_path(factor, depths.from_top(params))
