"""Mixed precision: what a model computes in is the dtype of the arrays that it is given.

Casting parameters and inputs to bfloat16 just before `apply` makes the towers compute in it. The
originals stay float32, and so do the BatchNorm statistics, the pooling weights, the concept heads
and everything after them.
"""

from typing import Any

import jax
import jax.numpy as jnp


def cast_floats(tree: Any, dtype: Any) -> Any:
    """Casts the floating leaves of a pytree and leaves all others as they are.

    Differentiable: the gradient with respect to a leaf has the leaf's own dtype.

    Args:
      tree: a pytree of arrays.
      dtype: that floating leaves get.

    Returns:
      A tree of the same structure.
    """

    def cast(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)
