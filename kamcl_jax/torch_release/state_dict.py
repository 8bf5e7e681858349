"""Converts between the state_dict of the KAMCL release (PyTorch) and our train state.

The release's state_dict holds two queues, four encoders and some modules that no forward pass uses.
Those modules have no place in our state: reading drops them, writing fills them with zeros (ones
for BatchNorm scales and variances), so that `load_state_dict(strict=True)` accepts the result. The
number of training steps is what the BatchNorms count. No checkpoint of the release has the
optimiser's moments; they start from zero.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from kamcl_jax.config import build, recipe
from kamcl_jax.errors import PretrainedError
from kamcl_jax.step.key_queue import KeyQueue, PairIds
from kamcl_jax.step.state import TrainState, step_rng
from kamcl_jax.weights.release_layout import query_gradient_layout, state_layout
from kamcl_jax.weights.torch_layout import (
    Layout,
    Place,
    StateDict,
    Tree,
    from_torch,
    to_torch,
    torch_shapes,
)
from kamcl_jax.weights.torchvision import resnet_depth

EMBEDDING = "textmodelQ.text_feature.seq2vec.embedding.weight"
CONCEPT_BIAS = "visualmodelQ.im.0.bias"


def from_state_dict(
    state_dict: Mapping[str, Any], config: ml_collections.ConfigDict, source: str = "the state_dict"
) -> TrainState:
    """Builds a train state from the release's state_dict, whose number of words is taken as it is.

    The state's step is the number of batches that the image encoder's first BatchNorm has seen, and
    the learning rate goes on from there.

    Args:
      state_dict: The release's names -> arrays (NumPy, or anything that `numpy.asarray` takes).
      config: The config of the model, the queue and the optimiser; the state_dict must fit it.
      source: What an error calls the state_dict.
    """
    tensors = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
    if EMBEDDING not in tensors:
        raise PretrainedError(f"{source} has no tensor {EMBEDDING}: it is no checkpoint of KAMCL")
    # The release adds concepts to the embedding, so that they are as many as it is wide.
    like = build.abstract_state(config, len(tensors[EMBEDDING]), config.embedding_size)
    tree = from_torch(tensors, _layout(config), _as_tree(like), source)
    params = tree["params"]["query"]
    step = _count(tensors, "visualmodelQ.extract_feature.resnet.bn1.num_batches_tracked")
    optimizer = recipe.make_optimizer(config, steps_per_epoch=1)

    def queue(modality: str, pointer: str) -> KeyQueue:
        keys = tree["queues"][modality]
        ids = PairIds.unknown(len(keys)) if recipe.queue_ids(config) else None
        return KeyQueue(keys, jnp.int32(_count(tensors, pointer)), ids)

    state = TrainState(
        step=jnp.int32(step),
        skipped=jnp.int32(0),
        params=params,
        batch_stats=tree["batch_stats"]["query"],
        key_params=tree["params"]["key"],
        key_batch_stats=tree["batch_stats"]["key"],
        opt_state=_after_steps(optimizer.init(params), step),
        image_queue=queue("image", "queue_ptr_im"),
        text_queue=queue("text", "queue_ptr_tx"),
        rng=step_rng(config.seed),
    )
    return jax.tree.map(jnp.asarray, state)


def to_state_dict(state: TrainState) -> StateDict:
    """Returns a train state under the release's names, shapes and order: f32 arrays, i64 counts.

    The release can have models of ResNet-18 (or 34) with as many concepts as the embedding is wide.
    Tensors that it stores but never uses are zeros, ones for BatchNorm scales and variances.
    """
    state = jax.device_get(state)
    layout = _layout_of(state)
    tensors = to_torch(_as_tree(state), layout, batch_count=int(state.step))
    for name, queue in (("queue_ptr_im", state.image_queue), ("queue_ptr_tx", state.text_queue)):
        tensors[name] = np.array([queue.pointer], np.int64)
    return tensors


def tensor_shapes(
    config: ml_collections.ConfigDict, num_tokens: int, num_concepts: int
) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of the release's state_dict, in its order.

    The word embedding has `num_tokens` rows, padding included.
    """
    like = build.abstract_state(config, num_tokens, num_concepts)
    return torch_shapes(_layout(config), _as_tree(like))


def used_names(state: TrainState) -> set[str]:
    """Returns the names of the release's tensors that have a place in our state."""
    return {name for name, entry in _layout_of(state).items() if isinstance(entry, Place)}


def gradients_to_torch(gradients: Tree) -> StateDict:
    """Returns gradients of the query parameters under the release's names, f32 arrays."""
    depth = resnet_depth(gradients["image"]["resnet"])
    return to_torch({"params": gradients}, query_gradient_layout(depth))


def _layout(config: ml_collections.ConfigDict) -> Layout:
    encoder = config.image_encoder
    return state_layout(encoder.depth, encoder.width, config.embedding_size)


def _as_tree(state: TrainState) -> Tree:
    return {
        "params": {"query": state.params, "key": state.key_params},
        "batch_stats": {"query": state.batch_stats, "key": state.key_batch_stats},
        "queues": {"image": state.image_queue.keys, "text": state.text_queue.keys},
    }


def _layout_of(state: TrainState) -> Layout:
    image = state.params["image"]
    num_concepts = image["concept_head"]["linear"]["bias"].shape[0]
    embedding_size = state.image_queue.keys.shape[1]
    if num_concepts != embedding_size:
        raise PretrainedError(
            "the release's model has as many concepts as its embedding is wide; this one has "
            f"{num_concepts} concepts and an embedding of {embedding_size}"
        )
    width = image["resnet"]["conv1"]["kernel"].shape[-1]
    return state_layout(resnet_depth(image["resnet"]), width, embedding_size)


def _after_steps(opt_state: optax.OptState, step: int) -> optax.OptState:
    """Sets the learning-rate schedule's count; Adam's own, which corrects its bias, stays 0."""

    def of_schedule(path, _):
        return getattr(path[-1], "tuple_name", None) == "ScaleByScheduleState"

    return optax.tree.set(opt_state, of_schedule, count=jnp.int32(step))


def _count(tensors: Mapping[str, np.ndarray], name: str) -> int:
    """Returns a count of batches or of written keys; 0 where it is absent."""
    return int(tensors[name].item()) if name in tensors else 0
