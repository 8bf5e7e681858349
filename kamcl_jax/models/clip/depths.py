"""How deep a parameter lies in its tower, counted from the embedding downwards."""

import re
from typing import Any

import jax

BEFORE_BLOCKS = frozenset({"patches", "class_embedding", "positions", "norm_before", "tokens"})
"""What a tower with blocks calls the parameters that come before them."""

_BLOCK = re.compile(r"block_(\d+)")


def from_top(params: Any) -> Any:
    """Returns how many blocks of its tower lie behind each parameter.

    A tower of L blocks has 0 for all that is behind them, 1 for the last block, 2 for the one
    before it, ..., L for the first, and L + 1 for what comes before them. A tower without blocks,
    as a ResNet is, has 0 everywhere, and so has what belongs to no tower.

    The blocks are counted by the last one that is there, so a part of the parameters has the depths
    that it has in the whole as long as it keeps each tower's last block or nothing below the heads.

    Args:
      params: Those of a `DualEncoder`, or a part of them; only their paths matter.

    Returns:
      A tree of the same structure, of ints.
    """
    paths = [_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    blocks: dict[str, int] = {}
    for names in paths:
        block = block_of(names)
        if block is not None:
            blocks[names[0]] = max(blocks.get(names[0], 0), block + 1)

    def depth(path: tuple[Any, ...], _: Any) -> int:
        names = _names(path)
        count, block = blocks.get(names[0], 0), block_of(names)
        if block is not None:
            return count - block
        return count + 1 if count and BEFORE_BLOCKS.intersection(names) else 0

    return jax.tree_util.tree_map_with_path(depth, params)


def block_of(names: tuple[str, ...]) -> int | None:
    """Returns the number of the block that a path of names leads into, or None."""
    found = (_BLOCK.fullmatch(name) for name in names)
    return next((int(match[1]) for match in found if match), None)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
