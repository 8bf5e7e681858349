"""ResNet's layout against torchvision's counts and names, and the conversion against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from published_weights import random_like, shapes_of

from kamcl_jax.errors import PretrainedError
from kamcl_jax.models.layers import BatchNorm, Convolution
from kamcl_jax.weights import torch_layout
from kamcl_jax.weights.resnet_layout import depth_of, resnet_layout
from kamcl_jax.weights.torch_layout import BatchCount, Place, Spare, from_torch, named, to_torch


# torchvision's state_dicts, classifier and counts of batches included.
@pytest.mark.parametrize(("depth", "entries"), [(18, 122), (34, 218), (50, 320), (101, 626)])
def test_a_resnet_layout_has_torchvisions_entries_and_fills_every_leaf_once(depth, entries):
    layout, shapes = resnet_layout(depth), shapes_of(depth)
    assert len(layout) == entries
    paths = [entry.path for entry in layout.values() if isinstance(entry, Place)]
    assert len(set(paths)) == len(paths)
    assert set(paths) == set(traverse_util.flatten_dict(shapes))
    assert depth_of(shapes["params"]) == depth


def test_names_and_their_order_are_torchvisions():
    names = list(resnet_layout(18))
    assert names[:7] == [
        "conv1.weight",
        *(f"bn1.{n}" for n in ("weight", "bias", "running_mean", "running_var")),
        "bn1.num_batches_tracked",
        "layer1.0.conv1.weight",
    ]
    shortcut = names.index("layer2.0.downsample.0.weight")
    assert names[shortcut - 1] == "layer2.0.bn2.num_batches_tracked"
    assert names[shortcut + 1] == "layer2.0.downsample.1.weight"
    assert names[-2:] == ["fc.weight", "fc.bias"]
    assert "layer1.0.downsample.0.weight" not in names
    assert "layer1.0.downsample.0.weight" in resnet_layout(50)


@pytest.mark.parametrize("depth", [18, 50])
def test_variables_come_back_from_pytorchs_layout(depth):
    layout, variables = resnet_layout(depth, 4), random_like(shapes_of(depth))
    tensors = to_torch(variables, layout, batch_count=7)
    assert tensors["conv1.weight"].shape == (4, 3, 7, 7)
    assert tensors["fc.weight"].shape == (1000, 32 if depth == 18 else 128)
    assert tensors["bn1.num_batches_tracked"] == 7
    assert tensors["bn1.num_batches_tracked"].dtype == np.int64
    jax.tree.map(
        np.testing.assert_array_equal, from_torch(tensors, layout, variables, "it"), variables
    )


def test_convolution_batch_norm_and_linear_compute_what_pytorchs_do():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False),
        torch.nn.BatchNorm2d(5),
        torch.nn.Flatten(),
        torch.nn.Linear(5 * 3 * 4, 2),
    )
    theirs(torch.randn(4, 3, 6, 8) + 1)  # for statistics that are not 0 and 1
    theirs[1].weight.data.uniform_(0.5, 2)
    theirs[1].bias.data.uniform_(-1, 1)
    images = torch.randn(2, 3, 6, 8)
    expected = theirs.eval()(images).detach().numpy()

    class Ours(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = BatchNorm(name="bn")(Convolution(5, 3, 2, name="conv")(x), train=False)
            # PyTorch flattens channels first.
            return nn.Dense(2, name="fc")(x.transpose(0, 3, 1, 2).reshape(len(x), -1))

    layout = {
        **named("0", torch_layout.convolution("conv")),
        **named("1", torch_layout.batch_norm("bn")),
        **named("3", torch_layout.linear("fc")),
    }
    tensors = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    ours = images.permute(0, 2, 3, 1).numpy()
    like = jax.eval_shape(lambda: Ours().init(jax.random.key(0), ours))
    variables = from_torch(tensors, layout, like, "it")
    np.testing.assert_allclose(Ours().apply(variables, ours), expected, rtol=1e-5, atol=1e-5)
    again = to_torch(variables, layout, batch_count=1)
    assert list(again) == list(tensors)
    jax.tree.map(np.testing.assert_array_equal, again, tensors)


LAYOUT = {
    "a.weight": Place(("params", "gates"), (1, 0), 0),
    "b.weight": Place(("params", "gates"), (1, 0), 1),
    "unused": Spare((3,), 1.0),
    "count": BatchCount(),
}
LIKE = {"params": {"gates": jax.ShapeDtypeStruct((2, 3, 4), jnp.float32)}}


def gates(**changed):
    tensors = {"a.weight": np.zeros((4, 3)), "b.weight": np.arange(12.0).reshape(4, 3)}
    return {**tensors, **changed}


def test_rows_of_a_stacked_leaf_come_from_several_tensors_and_spares_may_be_absent():
    variables = from_torch(gates(), LAYOUT, LIKE, "it")
    expected = np.stack([np.zeros((3, 4)), np.arange(12.0).reshape(4, 3).T])
    np.testing.assert_array_equal(variables["params"]["gates"], expected)
    assert variables["params"]["gates"].dtype == np.float32
    tensors = to_torch(variables, LAYOUT)
    np.testing.assert_array_equal(tensors["b.weight"], gates()["b.weight"])
    np.testing.assert_array_equal(tensors["unused"], np.ones(3))


def without(name):
    return {key: tensor for key, tensor in gates().items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (without("b.weight"), "the file lacks the tensor b.weight"),
        ({}, "the file lacks the tensor a.weight and 1 more"),
        (gates(c=np.zeros(1)), "the file is of another model: it has the tensor c"),
        (
            {**gates(), "b.weight": np.zeros((3, 4))},
            "the tensor b.weight of the file has the shape [3, 4]; the config's model needs [4, 3]",
        ),
        ({**gates(), "a.weight": np.zeros((4, 3), int)}, "a.weight of the file is int64, not"),
        (
            {**gates(), "a.weight": np.full((4, 3), np.nan)},
            "the tensor a.weight of the file holds values that are not finite",
        ),
    ],
)
def test_what_does_not_fit_is_named(tensors, sentence):
    with pytest.raises(PretrainedError) as error:
        from_torch(tensors, LAYOUT, LIKE, "the file")
    assert sentence in str(error.value)
