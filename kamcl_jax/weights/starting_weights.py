"""The published weights that a new model starts from, as the config names them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from flax.traverse_util import flatten_dict

from kamcl_jax.errors import PretrainedError
from kamcl_jax.step.finetuning import TRAIN_ALL, Finetuning, split, whole
from kamcl_jax.step.state import TrainState, adapter_key
from kamcl_jax.weights import published_model, skip_thoughts, torchvision
from kamcl_jax.weights.torch_layout import Tree


def check_weight_files(config: ml_collections.ConfigDict) -> None:
    """Checks that the files which the config names are there; it reads none of them."""
    image, text = config.image_encoder, config.text_encoder
    if config.encoders.pretrained and not Path(config.encoders.pretrained).expanduser().exists():
        raise PretrainedError(
            f"config.encoders.pretrained is {config.encoders.pretrained!r}: there is no such file"
        )
    if image.pretrained:
        torchvision.check_resnet_file(Path(image.pretrained).expanduser(), image.depth)
    if text.pretrained:
        skip_thoughts.check_files(Path(text.pretrained).expanduser())


def check_frozen_file(config: ml_collections.ConfigDict) -> None:
    """Checks that the file is there which the frozen part of a run comes from, if it has any."""
    if config.finetuning.trains != "all":  # checkpoints hold only what trains
        check_weight_files(config)


def starting_state(
    config: ml_collections.ConfigDict,
    state: TrainState,
    words: Sequence[str],
    finetuning: Finetuning = TRAIN_ALL,
) -> TrainState:
    """Puts published weights into a state's query encoders, and the same into its key encoders.

    `config.image_encoder.pretrained` is torchvision's file for the ResNet,
    `config.text_encoder.pretrained` the folder of the skip-thoughts files, and
    `config.encoders.pretrained` a published model; "" leaves an encoder as it is.

    Args:
      config: The config.
      state: The state at step 0.
      words: Those of the vocabulary.
      finetuning: What trains.
    """

    def of(params: Tree) -> Tree:
        return whole(finetuning, params, state.frozen)

    query = {"params": of(state.params), "batch_stats": state.batch_stats}
    key = {"params": of(state.key_params), "batch_stats": state.key_batch_stats}
    parts = list(_published_parts(config, query, words))
    if not parts:
        return state
    for path, part in parts:
        query, key = _with_part(query, path, part), _with_part(key, path, part)
    adapters = adapter_key(config.seed)
    params, frozen = split(finetuning, query["params"], adapters)
    key_params, _ = split(finetuning, key["params"], adapters)
    # Only now, as what is frozen needs no copy.
    key_params, key_batch_stats = jax.tree.map(_apart, (key_params, key["batch_stats"]))
    return state.replace(
        params=params,
        batch_stats=query["batch_stats"],
        key_params=key_params,
        key_batch_stats=key_batch_stats,
        frozen=frozen,
    )


def _apart(leaf: Any) -> Any:
    """Copies what query and key encoders share: no buffer can be donated to a step twice."""
    return np.copy(leaf) if isinstance(leaf, np.ndarray) else leaf


def _published_parts(
    config: ml_collections.ConfigDict, variables: Tree, words: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], Tree]]:
    """Yields the published parts of the variables, each with its path."""
    image, text = config.image_encoder, config.text_encoder
    if image.pretrained:
        paths = [(collection, "image", "resnet") for collection in ("params", "batch_stats")]
        like = {path[0]: _part(variables, path) for path in paths}
        file = Path(image.pretrained).expanduser()
        resnet = torchvision.resnet_variables(file, image.depth, image.width, like)
        for path in paths:
            yield path, resnet[path[0]]
    if text.pretrained:
        path = ("params", "text", "skip_thoughts")
        folder = Path(text.pretrained).expanduser()
        yield path, skip_thoughts.skip_thoughts_params(folder, words, _part(variables, path))
    if config.encoders.pretrained:
        name = config.encoders.preset
        published = published_model.read_published(config.encoders.pretrained, name)
        yield from flatten_dict(published).items()


def _part(tree: Tree, path: Sequence[str]) -> Tree:
    for name in path:
        tree = tree[name]
    return tree


def _with_part(tree: Tree, path: Sequence[str], part: Tree) -> Tree:
    """Returns the tree with another part at `path`; what lies beside the path is shared."""
    if not path:
        return part
    return {**tree, path[0]: _with_part(tree[path[0]], path[1:], part)}
