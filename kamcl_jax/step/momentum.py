"""The momentum encoder of MoCo (He et al. 2020): a pure function over two trees of parameters."""

from collections.abc import Callable
from typing import Any

import jax

Mask = Callable[[Any], Any]
"""Parameters -> a tree of bools of the same structure, as optax's masks are."""


def average(
    key_params: Any, query_params: Any, momentum: float | jax.Array, mask: Mask | None = None
) -> Any:
    """Moves key parameters towards query parameters: momentum * key + (1 - momentum) * query.

    Args:
      key_params: A pytree of f32 arrays.
      query_params: A pytree of the same structure and shapes.
      momentum: The share of the key parameters that stays; 0.999 in the paper. With 0 the result
        is a copy of the query parameters.
      mask: It says which key parameters move. None moves all of them, which is the paper's rule.

    Returns:
      The new key parameters.
    """
    moves = jax.tree.map(lambda _: True, key_params) if mask is None else mask(key_params)
    return jax.tree.map(
        lambda key, query, moved: momentum * key + (1 - momentum) * query if moved else key,
        key_params,
        query_params,
        moves,
    )
