"""The state_dict of the KAMCL release: its tensors in their order, and where each lies in ours."""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util

from kamcl_jax.errors import PretrainedError
from kamcl_jax.weights.torch_layout import (
    Layout,
    Place,
    Spare,
    below,
    linear,
    named,
    parameter_paths,
)
from kamcl_jax.weights.torchvision import resnet_depth, resnet_layout

GPO_WIDTH = 32
"""The width of the position codes and of the GRU in every GPO."""


def state_layout(depth: int, width: int, embedding_size: int) -> Layout:
    """Returns the layout of the whole state_dict of a model with an embedding f32[embedding_size].

    It describes a tree with the collections `params` and `batch_stats`, each with the parts `query`
    and `key`, and with `queues`, which has `image` and `text`. The ResNet has that depth and that
    width in its first stage.
    """
    if depth >= 50 or 8 * width != embedding_size:
        raise PretrainedError(
            "the release's model has ResNet-18 and an embedding as wide as its last stage; this "
            f"one has ResNet-{depth} of width {width} and an embedding of {embedding_size}"
        )
    layout: Layout = {}
    for modality, short in (("image", "im"), ("text", "tx")):
        layout[f"queue_{short}"] = Place(("queues", modality), (1, 0))
        layout[f"queue_ptr_{short}"] = Spare((1,), 0)
    for part, side in (("query", "Q"), ("key", "K")):
        image = below((part, "image"), image_layout(depth, width, embedding_size))
        layout |= named(f"visualmodel{side}", image)
        layout |= named(f"textmodel{side}", below((part, "text"), text_layout()))
    return layout | _unused_top(embedding_size)


def image_layout(depth: int, width: int, embedding_size: int) -> Layout:
    """Returns the layout of an image encoder in the variables of `models.towers.ImageEncoder`."""
    aggregator = {
        **named("extract_feature.gpo", _gpo("final_gpo")),
        **named("extract_feature.linear", _unused_linear(embedding_size, 8 * width)),
        **named("gpo", _gpo("gpo")),
        **named("low_module.gpo", _gpo("low_gpo")),
        **named("low_module.fc", linear("low_linear")),
        **named("high_module.gpo", _unused_gpo()),
        **named("high_module.fc", linear("high_linear")),
        **named("mlp", _mlp("mlp")),
    }
    resnet = below(("resnet",), resnet_layout(depth, width))
    return {
        **named("extract_feature.resnet", resnet),
        **below(("aggregator",), aggregator),
        **named("im.0", linear("concept_head", "linear")),
    }


def text_layout() -> Layout:
    """Returns the layout of a text encoder in the variables of `models.towers.TextEncoder`."""
    return {
        **named("text_feature.mlp", _mlp("mlp")),
        **named("text_feature.seq2vec", below(("skip_thoughts",), _skip_thoughts())),
        **named("text_feature.gpo", _gpo("word_gpo")),
        **named("text_feature.to_out", linear("state_linear")),
        **named("tx.0", linear("concept_head", "linear")),
        **named("gpo", _gpo("gpo")),
        **named("linear", linear("concept_linear")),
    }


def query_gradient_layout(depth: int) -> Layout:
    """Returns where the gradients of the query encoders' parameters lie, below `params`."""
    encoders = {
        **named("visualmodelQ", below(("image",), image_layout(depth, 64, 512))),
        **named("textmodelQ", below(("text",), text_layout())),
    }
    return {
        name: entry
        for name, entry in encoders.items()
        if isinstance(entry, Place) and entry.path[0] == "params"
    }


def release_momentum_mask(params: Mapping[str, Any]) -> Any:
    """Marks the key parameters that the release's momentum reaches, by a tree of bools.

    The release walks over the parameters of both encoders in parallel and stops with the shorter
    list: it reaches all of the text encoder, and as many of the image encoder's tensors, from the
    first convolution on, as the text encoder has.
    """
    image = image_layout(resnet_depth(params["image"]["resnet"]), width=64, embedding_size=512)
    reached = set(parameter_paths(image)[: len(parameter_paths(text_layout()))])
    leaves = traverse_util.flatten_dict(params)
    return traverse_util.unflatten_dict(
        {path: path[0] != "image" or path[1:] in reached for path in leaves}
    )


def _gru_direction(path: str, suffix: str) -> Layout:
    return {
        f"weight_ih_l0{suffix}": Place(("params", path, "input_kernel"), (1, 0)),
        f"weight_hh_l0{suffix}": Place(("params", path, "recurrent_kernel"), (1, 0)),
        f"bias_ih_l0{suffix}": Place(("params", path, "input_bias")),
        f"bias_hh_l0{suffix}": Place(("params", path, "recurrent_bias")),
    }


def _gpo(name: str) -> Layout:
    both = _gru_direction("forward_gru", "") | _gru_direction("backward_gru", "_reverse")
    return below((name,), {**named("gru", both), **named("linear", linear("score", bias=False))})


def _mlp(name: str) -> Layout:
    return {**named("0", linear(name, "linear1")), **named("2", linear(name, "linear2"))}


def _skip_thoughts() -> Layout:
    from_words: Layout = {}
    from_state: Layout = {}
    for row, letter in enumerate("rin"):  # `skip_thoughts.GATES`, as PyTorch's names have them
        from_words[f"weight_i{letter}.weight"] = Place(("params", "input_kernel"), (1, 0), row)
        from_words[f"weight_i{letter}.bias"] = Place(("params", "input_bias"), None, row)
        from_state[f"weight_h{letter}.weight"] = Place(("params", "recurrent_kernel"), (1, 0), row)
    return {
        "embedding.weight": Place(("params", "embedding")),
        **named("rnn.gru_cell", from_words | from_state),
    }


def _unused_linear(outputs: int, inputs: int) -> Layout:
    return {"weight": Spare((outputs, inputs)), "bias": Spare((outputs,))}


def _unused_gpo() -> Layout:
    gates = 3 * GPO_WIDTH
    gru: Layout = {
        name: Spare((gates, GPO_WIDTH) if name.startswith("weight") else (gates,))
        for name in _gru_direction("", "") | _gru_direction("", "_reverse")
    }
    return {**named("gru", gru), "linear.weight": Spare((1, GPO_WIDTH))}


def _unused_top(size: int) -> Layout:
    fills = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    batch_norm: Layout = {name: Spare((size,), fill) for name, fill in fills.items()}
    batch_norm["num_batches_tracked"] = Spare((), 0)
    layout = named("mlp.0", _unused_linear(size, size))
    layout |= named("mlp.2", _unused_linear(size, size))
    for name in ("im", "tx"):
        layout |= named(f"{name}.0", _unused_linear(size, size))
        layout |= named(f"{name}.1", batch_norm)
    return layout
