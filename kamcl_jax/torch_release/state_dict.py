"""The train state of the KAMCL release (PyTorch) and ours, both ways.

The release's state_dict holds two queues, four encoders and some modules that no forward pass uses.
Those have no place in our state: reading drops them, writing fills them with zeros (ones for
BatchNorm scales and variances), so that `load_state_dict(strict=True)` accepts the result. The
number of training steps is what its BatchNorms count. The optimiser's moments are in no checkpoint
of the release; they start from zero.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from kamcl_jax.config import build
from kamcl_jax.errors import PretrainedError
from kamcl_jax.step import state as train_state
from kamcl_jax.step.key_queue import KeyQueue, PairIds
from kamcl_jax.step.state import TrainState
from kamcl_jax.weights.release_layout import query_gradient_layout, state_layout
from kamcl_jax.weights.resnet_layout import depth_of
from kamcl_jax.weights.torch_layout import (
    Layout,
    Place,
    Spare,
    StateDict,
    Tree,
    from_torch,
    shapes,
    to_torch,
)

EMBEDDING = "textmodelQ.text_feature.seq2vec.embedding.weight"
CONCEPT_BIAS = "visualmodelQ.im.0.bias"
STEPS = "visualmodelQ.extract_feature.resnet.bn1.num_batches_tracked"


def from_state_dict(
    state_dict: Mapping[str, Any], config: ml_collections.ConfigDict, source: str = "the state_dict"
) -> TrainState:
    """Builds a train state from the release's state_dict.

    Words are as many as the state_dict has; everything else must fit the config.

    Args:
      state_dict: the release's names -> arrays (NumPy, or anything that `numpy.asarray` takes).
      config: of the model, the queue and the optimiser.
      source: what to call the state_dict in errors.

    Returns:
      The state, on the default device. Its step is the number of batches that the image encoder's
      first BatchNorm has seen, and the learning rate goes on from there.

    Raises:
      PretrainedError: a tensor is missing, unknown, of a wrong shape or not of finite numbers.
    """
    tensors = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
    layout = _layout(config)
    words = tensors.get(EMBEDDING, np.zeros(0))
    if words.ndim != 2 or not words.size:
        raise PretrainedError(f"{source} has no tensor {EMBEDDING} of rows and columns")
    # The release adds concepts to the embedding, so that they are as many.
    like = build.abstract_state(config, len(words), num_concepts=config.embedding_size)
    tree = from_torch(tensors, layout, _as_tree(like), source)
    _check_unused(tensors, layout, source)
    params = tree["params"]["query"]
    step = _count(tensors, STEPS, source) if STEPS in tensors else 0
    optimizer = build.make_optimizer(config, steps_per_epoch=1)

    def queue(modality: str, pointer: str) -> KeyQueue:
        keys = tree["queues"][modality]
        ids = PairIds.unknown(len(keys)) if build.queue_ids(config) else None
        return KeyQueue(keys, _pointer(tensors, pointer, source), ids)

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
        rng=train_state.step_rng(config.seed),
    )
    return jax.tree.map(jnp.asarray, state)


def to_state_dict(state: TrainState) -> StateDict:
    """Returns a train state under the release's names, shapes and order.

    Args:
      state: of a model that the release can have: ResNet-18 (or 34), as many concepts as the
        embedding is wide.

    Returns:
      f32 arrays (i64 for counts and pointers). Tensors that the release stores but never uses are
      zeros, ones for BatchNorm scales and variances.

    Raises:
      PretrainedError: the release cannot have such a model.
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

    Args:
      config: of the model and the queue.
      num_tokens: rows of the word embedding, padding included.
      num_concepts: rows of the concept heads.
    """
    like = build.abstract_state(config, num_tokens, num_concepts)
    return shapes(_layout(config), _as_tree(like))


def used_names(state: TrainState) -> set[str]:
    """Returns the names of the release's tensors that have a place in our state."""
    return {name for name, entry in _layout_of(state).items() if isinstance(entry, Place)}


def gradients_to_torch(gradients: Tree) -> StateDict:
    """Returns gradients of the query parameters under the release's names, f32 arrays."""
    depth = depth_of(gradients["image"]["resnet"])
    return to_torch({"params": gradients}, query_gradient_layout(depth))


def _layout(config: ml_collections.ConfigDict) -> Layout:
    encoder = config.image_encoder
    return state_layout(encoder.depth, encoder.width, config.embedding_size)


def _as_tree(state: TrainState) -> Tree:
    """The part of the state that tensors of the release stand for, as `state_layout` names it."""
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
    return state_layout(depth_of(image["resnet"]), width, embedding_size)


def _after_steps(opt_state: optax.OptState, step: int) -> optax.OptState:
    """Sets the learning-rate schedule's count; Adam's own, which corrects its bias, stays 0."""

    def of_schedule(path, _):
        return getattr(path[-1], "tuple_name", None) == "ScaleByScheduleState"

    return optax.tree.set(opt_state, of_schedule, count=jnp.int32(step))


def _check_unused(tensors: Mapping[str, np.ndarray], layout: Layout, source: str) -> None:
    """Refuses tensors of another shape where nothing is read either: it is another model."""
    for name, entry in layout.items():
        if name not in tensors or isinstance(entry, Place):
            continue
        shape = entry.shape if isinstance(entry, Spare) else ()
        if tensors[name].shape != shape:
            raise PretrainedError(
                f"the tensor {name} of {source} has the shape {list(tensors[name].shape)}; "
                f"the release's model has {list(shape)}"
            )


def _pointer(tensors: Mapping[str, np.ndarray], name: str, source: str) -> jax.Array:
    length = tensors[name.replace("_ptr", "")].shape[1]
    row = _count(tensors, name, source)
    if row >= length:
        raise PretrainedError(f"the tensor {name} of {source} is {row}, beyond a queue of {length}")
    return jnp.int32(row)


def _count(tensors: Mapping[str, np.ndarray], name: str, source: str) -> int:
    """Returns a count that fits into an i32."""
    if name not in tensors:
        raise PretrainedError(f"{source} lacks the tensor {name}")
    tensor = tensors[name]
    whole = tensor.size == 1 and np.issubdtype(tensor.dtype, np.integer)
    if not whole or not 0 <= tensor.item() <= np.iinfo(np.int32).max:
        raise PretrainedError(f"the tensor {name} of {source} is no count of batches or keys")
    return int(tensor.item())
