"""ImageNet weights of torchvision's ResNets."""

from collections.abc import Iterable
from pathlib import Path

from kamcl_jax.errors import PretrainedError
from kamcl_jax.models.resnet import BLOCKS_PER_STAGE
from kamcl_jax.weights import tensor_files
from kamcl_jax.weights.resnet_layout import resnet_layout
from kamcl_jax.weights.torch_layout import Tree, from_torch

PUBLISHED = {
    18: "resnet18-f37072fd.pth",
    34: "resnet34-b627a593.pth",
    50: "resnet50-0676ba61.pth",
    101: "resnet101-63fe2227.pth",
}
"""Depth -> torchvision's file, below https://download.pytorch.org/models/."""


def check(path: str | Path, depth: int) -> None:
    """Checks that the file is there and that what reads it is installed; reads nothing.

    Args:
      path: of the weights.
      depth: 18, 34, 50 or 101; which file to name if there is none.

    Raises:
      PretrainedError: otherwise.
    """
    if not Path(path).exists():
        raise PretrainedError(
            f"there is no file {path}; download it as "
            f"https://download.pytorch.org/models/{PUBLISHED[depth]}, or as model.safetensors of "
            f"timm/resnet{depth}.tv_in1k from Hugging Face"
        )
    tensor_files.check(path)


def resnet_variables(path: str | Path, depth: int, width: int, like: Tree) -> Tree:
    """Reads a ResNet's variables.

    Args:
      path: torchvision's `.pth` file, or the same tensors as `.safetensors`. The classifier is left
        out; the counts of batches, which old files lack, are not needed.
      depth: 18, 34, 50 or 101.
      width: channels of the first stage; 64 in torchvision.
      like: the variables of such a `models.resnet.ResNet`, arrays or `jax.ShapeDtypeStruct`s.

    Returns:
      `params` and `batch_stats`, f32 NumPy arrays in the structure of `like`.

    Raises:
      PretrainedError: the file is missing, cannot be read, or is of another network.
    """
    check(path, depth)
    tensors = tensor_files.read(path).tensors
    stored_depth = _depth_of(tensors)
    if stored_depth not in (None, depth):
        raise PretrainedError(
            f"{path} holds ResNet-{stored_depth}; config.image_encoder.depth is {depth}"
        )
    return from_torch(tensors, resnet_layout(depth, width), like, str(path))


def _depth_of(names: Iterable[str]) -> int | None:
    stored = _modules(names)
    return next((d for d in BLOCKS_PER_STAGE if stored == _modules(resnet_layout(d))), None)


def _modules(names: Iterable[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names} - {"fc"}
