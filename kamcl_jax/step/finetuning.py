"""Which part of the parameters trains: all, the heads, the last blocks, or adapters of low rank.

A training keeps two trees, of what trains and of what is frozen. Every step joins them before it
applies the encoders, which know nothing of it.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from kamcl_jax.models.clip import depths
from kamcl_jax.models.layers import linear_init
from kamcl_jax.models.towers import CONCEPT_HEAD, LOGIT_BIAS, LOGIT_SCALE

LORA_DOWN, LORA_UP = "lora_down", "lora_up"
"""What stands in the place of a kernel that has an adapter."""

_Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Finetuning:
    """What of a model trains.

    Attributes:
      trains: 'all'; 'heads' for what is behind the blocks of each tower, with the concept heads;
        'blocks' for those and the last blocks of each tower; 'lora' for the concept heads and
        adapters of low rank (Hu et al. 2021) for the attentions and MLPs of all blocks. A tower
        without blocks, as a ResNet is, trains whole, but with 'lora' not at all. The scale and the
        bias of the logits train with any of these.
      last_blocks: How many blocks of each tower train with 'blocks'; one more than there are takes
        what comes before them, too.
      rank: The rank of the adapters.
      alpha: What adapters are added with is alpha / rank, so that another rank needs no other
        learning rate.
    """

    trains: str = "all"
    last_blocks: int = 2
    rank: int = 8
    alpha: float = 16.0


TRAIN_ALL = Finetuning()


def split(
    finetuning: Finetuning, params: Any, key: jax.Array
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits parameters into what trains and what is frozen.

    An adapter starts as the paper's own code and PEFT do: `lora_down` from U(-1/sqrt(in),
    1/sqrt(in)) and `lora_up` at 0, so that it adds nothing yet. The queries, keys and values of an
    attention are one kernel here and have one adapter.

    Args:
      finetuning: What trains.
      params: The parameters of a `DualEncoder`; paths and shapes alone decide where each goes.
      key: The PRNG key of the adapters.

    Returns:
      (trained, frozen), nested as the parameters are, without empty branches. In the place of a
      kernel that has an adapter, [in, out], `trained` holds `{"lora_down": f32[in, r], "lora_up":
      f32[r, out]}`, in the kernel's dtype if that is wider, and `frozen` holds the kernel itself.
    """
    if finetuning.trains == "all":
        return params, {}
    flat = flatten_dict(params)
    depth = flatten_dict(depths.from_top(params))
    trained: dict[_Path, jax.Array] = {}
    frozen: dict[_Path, jax.Array] = {}
    for path, leaf in flat.items():
        (trained if _trains(finetuning, path, depth[path]) else frozen)[path] = leaf
    if finetuning.trains == "lora":
        kernels = sorted(path for path in flat if _is_adapted(path))
        for path, one in zip(kernels, jax.random.split(key, len(kernels)), strict=True):
            width, out = flat[path].shape
            dtype = jnp.promote_types(flat[path].dtype, jnp.float32)
            trained[*path, LORA_DOWN] = linear_init(one, (width, finetuning.rank), dtype)
            trained[*path, LORA_UP] = jnp.zeros((finetuning.rank, out), dtype)
    return unflatten_dict(trained), unflatten_dict(frozen)


def _trains(finetuning: Finetuning, path: _Path, depth: int) -> bool:
    if LOGIT_SCALE in path or LOGIT_BIAS in path:
        return True
    match finetuning.trains:
        case "lora":
            return CONCEPT_HEAD in path
        case "heads":
            return depth == 0
        case _:
            return depth <= finetuning.last_blocks


def _is_adapted(path: _Path) -> bool:
    inside = depths.block_of(path) is not None and {"attention", "mlp"}.intersection(path)
    return bool(inside) and path[-1] == "kernel"


def whole(finetuning: Finetuning, trained: Any, frozen: Any) -> Any:
    """Joins what `split` took apart, and adds (alpha / rank) down @ up to each adapted kernel.

    Args:
      finetuning: What trains.
      trained: The first tree of `split`, after any number of steps.
      frozen: The second; no gradient reaches it.

    Returns:
      Parameters as a model takes them, in their own dtypes: right after `split` those that it was
      given, bit by bit.
    """
    if not frozen:
        return trained
    joined = flatten_dict(jax.lax.stop_gradient(frozen))
    parts = flatten_dict(trained)
    scale = finetuning.alpha / finetuning.rank
    for path, leaf in parts.items():
        if path[-1] == LORA_DOWN:
            place = path[:-1]
            added = scale * (leaf @ parts[*place, LORA_UP])
            joined[place] = (joined[place] + added).astype(joined[place].dtype)
        elif path[-1] != LORA_UP:
            joined[path] = leaf
    return unflatten_dict(joined)
