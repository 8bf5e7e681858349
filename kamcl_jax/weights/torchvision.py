"""torchvision's ResNets: the layout of their state_dict, and their published ImageNet weights."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flax import traverse_util

from kamcl_jax.errors import PretrainedError
from kamcl_jax.models.resnet import BLOCKS_PER_STAGE, BOTTLENECK_FROM
from kamcl_jax.weights import tensor_files
from kamcl_jax.weights.torch_layout import (
    Layout,
    Spare,
    Tree,
    batch_norm,
    convolution,
    from_torch,
    named,
    parameter_paths,
)

PUBLISHED = {
    18: "resnet18-f37072fd.pth",
    34: "resnet34-b627a593.pth",
    50: "resnet50-0676ba61.pth",
    101: "resnet101-63fe2227.pth",
}
"""Depth -> torchvision's file, below https://download.pytorch.org/models/."""


def resnet_layout(depth: int, width: int = 64) -> Layout:
    """Returns the layout of torchvision's ResNet in the variables of `models.resnet.ResNet`.

    Torchvision's width, the channels of the first stage, is 64.
    """
    bottleneck = depth >= BOTTLENECK_FROM
    layout = {**named("conv1", convolution("conv1")), **named("bn1", batch_norm("bn1"))}
    for stage, blocks in enumerate(BLOCKS_PER_STAGE[depth]):
        for index in range(blocks):
            # The first block of a stage changes resolution or channels; so does its shortcut.
            shortcut = index == 0 and (stage > 0 or bottleneck)
            block = _block(f"layer{stage + 1}_{index}", 3 if bottleneck else 2, shortcut)
            layout |= named(f"layer{stage + 1}.{index}", block)
    channels = width * 8 * (4 if bottleneck else 1)
    return layout | {"fc.weight": Spare((1000, channels)), "fc.bias": Spare((1000,))}


def _block(name: str, convolutions: int, shortcut: bool) -> Layout:
    layout: Layout = {}
    for number in range(1, convolutions + 1):
        layout |= named(f"conv{number}", convolution(name, f"conv{number}"))
        layout |= named(f"bn{number}", batch_norm(name, f"bn{number}"))
    if shortcut:
        layout |= named("downsample.0", convolution(name, "downsample_conv"))
        layout |= named("downsample.1", batch_norm(name, "downsample_bn"))
    return layout


def resnet_depth(params: Mapping[str, Any]) -> int:
    """Returns the depth of a `models.resnet.ResNet`, which the names of its parameters tell."""
    paths = set(traverse_util.flatten_dict(params))
    return next(d for d in BLOCKS_PER_STAGE if paths == set(parameter_paths(resnet_layout(d))))


def check_resnet_file(path: str | Path, depth: int) -> None:
    """Checks that a file of weights of that depth is there and readable; it reads nothing yet."""
    if not Path(path).exists():
        raise PretrainedError(
            f"there is no file {path}; download it as "
            f"https://download.pytorch.org/models/{PUBLISHED[depth]}, or as model.safetensors of "
            f"timm/resnet{depth}.tv_in1k from Hugging Face"
        )
    tensor_files.check_format(Path(path))


def resnet_variables(path: str | Path, depth: int, width: int, like: Tree) -> Tree:
    """Reads the variables of a `models.resnet.ResNet`, f32 NumPy arrays in the structure of `like`.

    The file is torchvision's `.pth`, or has the same tensors as `.safetensors`. Neither the
    classifier nor the counts of batches, which old files lack, are needed.
    """
    check_resnet_file(path, depth)
    tensors = tensor_files.read(path).tensors
    stored = _modules(tensors)
    stored_depth = next((d for d in BLOCKS_PER_STAGE if stored == _modules(resnet_layout(d))), None)
    if stored_depth not in (None, depth):
        raise PretrainedError(
            f"{path} holds ResNet-{stored_depth}; config.image_encoder.depth is {depth}"
        )
    return from_torch(tensors, resnet_layout(depth, width), like, str(path))


def _modules(names: Iterable[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names} - {"fc"}
