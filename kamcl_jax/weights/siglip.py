"""big_vision's files of SigLIP: where their arrays lie in ours, and how they are read."""

from pathlib import Path

import ml_dtypes
import numpy as np

from kamcl_jax.errors import PretrainedError
from kamcl_jax.models.clip.presets import Preset, TransformerSizes, VisionTransformerSizes
from kamcl_jax.weights.clip_layout import IMAGE, TEXT, repeated
from kamcl_jax.weights.tensor_files import damage_told
from kamcl_jax.weights.torch_layout import Layout, Place, StateDict, below, named

SUFFIX = ".npz"
"""The suffix of big_vision's files."""

_STACK, _BLOCK = "encoderblock", "encoderblock_{}"


def big_vision_layout(preset: Preset) -> Layout:
    """Returns the layout of `read_big_vision`'s arrays of a preset.

    Raises:
      PretrainedError: The preset is no SigLIP.
    """
    if not isinstance(preset.image, VisionTransformerSizes) or preset.family != "siglip":
        raise PretrainedError("big_vision's files are for presets of SigLIP alone")
    return {
        "t": Place(("params", "logit_scale"), shape=(1,)),
        "b": Place(("params", "logit_bias"), shape=(1,)),
        **named("img", below(IMAGE, _image_tower(preset, preset.image))),
        **named("txt", below(TEXT, _text_tower(preset))),
    }


def read_big_vision(path: Path) -> StateDict:
    """Reads a `.npz` file of big_vision's: its parameters, with dots between the names.

    Layers that are stacked along a first axis are taken apart, and bfloat16 is widened to f32.

    Raises:
      PretrainedError: It is no such file.
      FileNotFoundError: There is none.
    """
    with damage_told(path), np.load(path, allow_pickle=False) as file:
        arrays = {name: _widened(file[name]) for name in file.files}
    tensors: StateDict = {}
    for name, array in arrays.items():
        names = name.removeprefix("params/").split("/")
        if _STACK not in names:
            tensors[".".join(names)] = array
            continue
        place = names.index(_STACK)
        for number, row in enumerate(array):
            block = [*names[:place], _BLOCK.format(number), *names[place + 1 :]]
            tensors[".".join(block)] = row
    return tensors


def _widened(array: np.ndarray) -> np.ndarray:
    # NumPy's files do not know bfloat16: it comes back as two bytes without a meaning.
    return array.view(ml_dtypes.bfloat16).astype(np.float32) if array.dtype == "V2" else array


def _image_tower(preset: Preset, sizes: VisionTransformerSizes) -> Layout:
    count = (preset.image_size // sizes.patch) ** 2
    pooling: Layout = {
        "probe": Place(("params", "query")),
        **named("MultiHeadDotProductAttention_0", _attention(sizes, "pooling_attention")),
        **named("LayerNorm_0", _norm("pooling_norm")),
        **named("MlpBlock_0", _mlp("pooling_mlp")),
    }
    return {
        **named("embedding", _dense("patches")),
        "pos_embedding": Place(("params", "positions"), shape=(1, count, sizes.width)),
        **named("Transformer", _encoder(sizes)),
        **named("MAPHead_0", pooling),
    }


def _text_tower(preset: Preset) -> Layout:
    sizes = preset.text
    return {
        "Embed_0.embedding": Place(("params", "tokens", "embedding")),
        "pos_embedding": Place(("params", "positions"), shape=(1, sizes.context, sizes.width)),
        **named("Encoder_0", _encoder(sizes)),
        **named("head", _dense("projection")),
    }


def _encoder(sizes: TransformerSizes) -> Layout:
    block = {
        **named("LayerNorm_0", _norm("attention_norm")),
        **named("MultiHeadDotProductAttention_0", _attention(sizes, "attention")),
        **named("LayerNorm_1", _norm("mlp_norm")),
        **named("MlpBlock_0", _mlp("mlp")),
    }
    return named("encoder_norm", _norm("norm")) | repeated(sizes.layers, block, _BLOCK)


def _attention(sizes: TransformerSizes, *path: str) -> Layout:
    width, heads = sizes.width, sizes.heads
    in_heads = (heads, width // heads)
    layout: Layout = {
        "out.kernel": Place(("params", *path, "out", "kernel"), shape=(*in_heads, width)),
        "out.bias": Place(("params", *path, "out", "bias")),
    }
    for third, name in enumerate(("query", "key", "value")):
        part = slice(third * width, (third + 1) * width)
        kernel, bias = (("params", *path, "qkv", leaf) for leaf in ("kernel", "bias"))
        layout[f"{name}.kernel"] = Place(kernel, None, (slice(None), part), (width, *in_heads))
        layout[f"{name}.bias"] = Place(bias, None, part, in_heads)
    return layout


def _mlp(*path: str) -> Layout:
    return {**named("Dense_0", _dense(*path, "up")), **named("Dense_1", _dense(*path, "down"))}


def _dense(*path: str) -> Layout:
    return {name: Place(("params", *path, name)) for name in ("kernel", "bias")}


def _norm(*path: str) -> Layout:
    return {name: Place(("params", *path, name)) for name in ("scale", "bias")}
