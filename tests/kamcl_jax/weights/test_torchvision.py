"""torchvision's ResNets: the layout against published counts and names, and files of weights."""

import jax
import numpy as np
import pytest
from flax import traverse_util
from published_weights import random_like, shapes_of

from kamcl_jax.errors import PretrainedError
from kamcl_jax.weights import tensor_files, torchvision
from kamcl_jax.weights.torch_layout import Place, to_torch
from kamcl_jax.weights.torchvision import resnet_layout

WIDTH = 4


# torchvision's state_dicts, classifier and counts of batches included.
@pytest.mark.parametrize(("depth", "entries"), [(18, 122), (34, 218), (50, 320), (101, 626)])
def test_a_resnet_layout_has_torchvisions_entries_and_fills_every_leaf_once(depth, entries):
    layout, shapes = resnet_layout(depth), shapes_of(depth)
    assert ("layer1.0.downsample.0.weight" in layout) == (depth >= 50)
    assert len(layout) == entries
    paths = [entry.path for entry in layout.values() if isinstance(entry, Place)]
    assert len(set(paths)) == len(paths)
    assert set(paths) == set(traverse_util.flatten_dict(shapes))
    assert torchvision.resnet_depth(shapes["params"]) == depth


def write(path, variables, depth=18, absent=()):
    tensors = to_torch(variables, resnet_layout(depth, WIDTH), batch_count=7)
    kept = {name: tensor for name, tensor in tensors.items() if name not in absent}
    tensor_files.write(path, kept, epoch=0, score=0.0)
    return path


@pytest.mark.parametrize(
    ("depth", "suffix", "is_old"),
    [(18, ".safetensors", False), (18, ".pth", False), (50, ".safetensors", True)],
)
def test_every_tensor_comes_to_its_place(tmp_path, depth, suffix, is_old):
    if suffix == ".pth":
        pytest.importorskip("torch")
    variables = random_like(shapes_of(depth, WIDTH))
    # Old files lack the counts of batches; nothing needs the classifier.
    absent = [n for n in resnet_layout(depth) if n.startswith("fc.") or "num_batches" in n]
    path = write(tmp_path / f"resnet{suffix}", variables, depth, absent if is_old else [])
    read_back = torchvision.resnet_variables(path, depth, WIDTH, shapes_of(depth, WIDTH))
    jax.tree.map(np.testing.assert_array_equal, read_back, variables)


@pytest.mark.parametrize(("stored", "wanted", "absent"), [(34, 18, ["fc.bias"]), (18, 50, [])])
def test_another_depth_is_told(tmp_path, stored, wanted, absent):
    path = write(tmp_path / "resnet.safetensors", random_like(shapes_of(stored)), stored, absent)
    sentence = rf"resnet.safetensors holds ResNet-{stored}; config.image_encoder.depth is {wanted}"
    with pytest.raises(PretrainedError, match=sentence):
        torchvision.resnet_variables(path, wanted, WIDTH, {})
