"""The published weights that a new model starts from, as the config names them."""

from collections.abc import Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np

from kamcl_jax.step.state import TrainState
from kamcl_jax.weights import skip_thoughts, torchvision
from kamcl_jax.weights.torch_layout import Tree

RESNET = ("image", "resnet")
SKIP_THOUGHTS = ("text", "skip_thoughts")


def check(config: ml_collections.ConfigDict) -> None:
    """Checks that the files which the config names are there; reads none of them.

    Args:
      config: `image_encoder.pretrained` and `text_encoder.pretrained`, "" for none.

    Raises:
      PretrainedError: one is missing, or what reads it is not installed.
    """
    image, text = config.image_encoder, config.text_encoder
    if image.pretrained:
        torchvision.check(Path(image.pretrained).expanduser(), image.depth)
    if text.pretrained:
        skip_thoughts.check(Path(text.pretrained).expanduser())


def starting_state(
    config: ml_collections.ConfigDict, state: TrainState, words: Sequence[str]
) -> TrainState:
    """Puts published weights into the query encoders, and the same into the key encoders.

    Args:
      config: see `starting_variables`.
      state: at step 0; not changed.
      words: of the vocabulary.

    Raises:
      PretrainedError: a file is missing, damaged, or does not fit the model.
    """
    query = starting_variables(config, state.variables, words)
    key = {"params": state.key_params, "batch_stats": state.key_batch_stats}
    for path in _published(config):
        # Copies: the state will be donated, and no buffer can be donated twice.
        key = _replaced(key, path, jax.tree.map(np.copy, _part(query, path)))
    return state.replace(
        params=query["params"],
        batch_stats=query["batch_stats"],
        key_params=key["params"],
        key_batch_stats=key["batch_stats"],
    )


def starting_variables(
    config: ml_collections.ConfigDict, variables: Tree, words: Sequence[str]
) -> Tree:
    """Puts published weights in the place of random ones.

    Args:
      config: `image_encoder.pretrained` is torchvision's file for the image encoder's ResNet,
        `text_encoder.pretrained` the folder of skip-thoughts' files; "" leaves that encoder as it
        is.
      variables: `params` and `batch_stats` of a `models.encoders.DualEncoder`; not changed.
      words: of the vocabulary.

    Returns:
      The variables, the read parts as f32 NumPy arrays.

    Raises:
      PretrainedError: a file is missing, damaged, or does not fit the model.
    """
    image, text = config.image_encoder, config.text_encoder
    if image.pretrained:
        collections = ("params", "batch_stats")
        like = {name: _part(variables, (name, *RESNET)) for name in collections}
        path = Path(image.pretrained).expanduser()
        resnet = torchvision.resnet_variables(path, image.depth, image.width, like)
        for name in collections:
            variables = _replaced(variables, (name, *RESNET), resnet[name])
    if text.pretrained:
        path = Path(text.pretrained).expanduser()
        place = ("params", *SKIP_THOUGHTS)
        params = skip_thoughts.skip_thoughts_params(path, words, _part(variables, place))
        variables = _replaced(variables, place, params)
    return variables


def _published(config: ml_collections.ConfigDict) -> list[tuple[str, ...]]:
    """Where `starting_variables` puts published weights."""
    paths: list[tuple[str, ...]] = []
    if config.image_encoder.pretrained:
        paths += [("params", *RESNET), ("batch_stats", *RESNET)]
    if config.text_encoder.pretrained:
        paths += [("params", *SKIP_THOUGHTS)]
    return paths


def _part(tree: Tree, path: Sequence[str]) -> Tree:
    for name in path:
        tree = tree[name]
    return tree


def _replaced(tree: Tree, path: Sequence[str], part: Tree) -> Tree:
    """Returns the tree with another part at `path`; what is beside the path is shared."""
    if not path:
        return part
    return {**tree, path[0]: _replaced(tree[path[0]], path[1:], part)}
