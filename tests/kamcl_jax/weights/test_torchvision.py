import jax
import numpy as np
import pytest
from published_weights import random_like, shapes_of

from kamcl_jax.errors import PretrainedError
from kamcl_jax.weights import tensor_files, torchvision
from kamcl_jax.weights.resnet_layout import resnet_layout
from kamcl_jax.weights.torch_layout import to_torch

WIDTH = 4


@pytest.fixture(scope="module")
def resnet18():
    return random_like(shapes_of(18, WIDTH))


def write(path, variables, depth=18, **changed):
    tensors = {**to_torch(variables, resnet_layout(depth, WIDTH)), **changed}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    tensor_files.write(path, kept, epoch=0, score=0.0)
    return path


def read(path, depth=18):
    return torchvision.resnet_variables(path, depth, WIDTH, shapes_of(depth, WIDTH))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_every_tensor_comes_to_its_place(tmp_path, resnet18, suffix):
    if suffix == ".pth":
        pytest.importorskip("torch")
    read_back = read(write(tmp_path / f"resnet{suffix}", resnet18))
    jax.tree.map(np.testing.assert_array_equal, read_back, resnet18)


def test_counts_of_batches_and_the_classifier_may_be_absent(tmp_path, resnet18):
    absent = {n: None for n in resnet_layout(18) if n.startswith("fc.") or "num_batches" in n}
    assert len(absent) == 22
    read_back = read(write(tmp_path / "old.safetensors", resnet18, **absent))
    jax.tree.map(np.testing.assert_array_equal, read_back, resnet18)


@pytest.mark.parametrize(
    ("depth", "name"),
    [
        (18, "resnet18-f37072fd.pth"),
        (34, "resnet34-b627a593.pth"),
        (50, "resnet50-0676ba61.pth"),
        (101, "resnet101-63fe2227.pth"),
    ],
)
def test_a_missing_file_is_told_with_where_to_get_it(tmp_path, depth, name):
    path = tmp_path / "none.pth"
    with pytest.raises(PretrainedError) as error:
        torchvision.check(path, depth)
    assert str(error.value) == (
        f"there is no file {path}; download it as https://download.pytorch.org/models/{name}, or "
        f"as model.safetensors of timm/resnet{depth}.tv_in1k from Hugging Face"
    )
    with pytest.raises(PretrainedError, match="there is no file"):
        torchvision.resnet_variables(path, depth, WIDTH, {})


@pytest.mark.parametrize(
    ("stored", "wanted", "absent"),
    [(34, 18, ["fc.weight", "fc.bias"]), (18, 50, []), (50, 101, [])],
)
def test_another_depth_is_told(tmp_path, stored, wanted, absent):
    variables, changed = random_like(shapes_of(stored)), dict.fromkeys(absent)
    path = write(tmp_path / "resnet.safetensors", variables, stored, **changed)
    sentence = rf"resnet.safetensors holds ResNet-{stored}; config.image_encoder.depth is {wanted}"
    with pytest.raises(PretrainedError, match=sentence):
        torchvision.resnet_variables(path, wanted, WIDTH, {})


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"conv1.weight": None}, "lacks the tensor conv1.weight"),
        ({"layer5.0.conv1.weight": np.ones(1)}, "it has the tensor layer5.0.conv1.weight"),
        (
            {"layer1.0.bn1.weight": np.ones(5, np.float32)},
            "layer1.0.bn1.weight of {path} has the shape [5]; the config's model needs [4]",
        ),
        ({"bn1.running_var": np.full(4, np.nan)}, "bn1.running_var of {path} holds values that"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, resnet18, changed, sentence):
    path = write(tmp_path / "resnet.safetensors", resnet18, **changed)
    with pytest.raises(PretrainedError) as error:
        read(path)
    assert sentence.format(path=path) in str(error.value)
    assert str(path) in str(error.value)


def test_a_cut_file_is_refused(tmp_path, resnet18):
    path = write(tmp_path / "resnet.safetensors", resnet18)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PretrainedError, match=r"resnet.safetensors is no whole safetensors file"):
        read(path)
