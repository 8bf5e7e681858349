"""The state_dict of a torchvision ResNet and its place in ours."""

from collections.abc import Mapping
from typing import Any

from kamcl_jax.models.resnet import BLOCKS_PER_STAGE, BOTTLENECK_FROM
from kamcl_jax.weights.torch_layout import Layout, Spare, batch_norm, convolution, named

IMAGENET_CLASSES = 1000


def resnet_layout(depth: int, width: int = 64) -> Layout:
    """Returns the layout of torchvision's ResNet in the variables of `models.resnet.ResNet`.

    Args:
      depth: 18, 34, 50 or 101.
      width: channels of the first stage; 64 in torchvision.
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
    layout["fc.weight"] = Spare((IMAGENET_CLASSES, channels))
    layout["fc.bias"] = Spare((IMAGENET_CLASSES,))
    return layout


def depth_of(params: Mapping[str, Any]) -> int:
    """Tells the depth of a `models.resnet.ResNet` from its parameters.

    Raises:
      ValueError: no known depth has these blocks.
    """
    names = {name for name in params if name.startswith("layer")}
    bottleneck = "conv3" in params["layer1_0"]
    for depth, stages in BLOCKS_PER_STAGE.items():
        known = {f"layer{s + 1}_{i}" for s, blocks in enumerate(stages) for i in range(blocks)}
        if names == known and bottleneck == (depth >= BOTTLENECK_FROM):
            return depth
    raise ValueError("the parameters are of no known ResNet")


def _block(name: str, convolutions: int, shortcut: bool) -> Layout:
    layout: Layout = {}
    for number in range(1, convolutions + 1):
        layout |= named(f"conv{number}", convolution(name, f"conv{number}"))
        layout |= named(f"bn{number}", batch_norm(name, f"bn{number}"))
    if shortcut:
        layout |= named("downsample.0", convolution(name, "downsample_conv"))
        layout |= named("downsample.1", batch_norm(name, "downsample_bn"))
    return layout
