"""The way between PyTorch's tensors and ours: against PyTorch's layers, and what is refused."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from kamcl_jax.errors import PretrainedError
from kamcl_jax.models.layers import BatchNorm, Convolution
from kamcl_jax.weights import torch_layout
from kamcl_jax.weights.torch_layout import Place, from_torch, named, to_torch


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
}
LIKE = {"params": {"gates": jax.ShapeDtypeStruct((2, 3, 4), jnp.float32)}}
TENSORS = {"a.weight": np.zeros((4, 3)), "b.weight": np.arange(12.0).reshape(4, 3)}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"a.weight": None, "b.weight": None}, "the file lacks the tensor a.weight and 1 more"),
        ({"c": np.zeros(1)}, "the file is of another model: it has the tensor c"),
        (
            {"b.weight": np.zeros((3, 4))},
            "the tensor b.weight of the file has the shape [3, 4]; the model needs [4, 3]",
        ),
        ({"a.weight": np.full((4, 3), np.nan)}, "a.weight of the file holds values that are not f"),
    ],
)
def test_what_does_not_fit_is_named(changed, sentence):
    tensors = {n: tensor for n, tensor in {**TENSORS, **changed}.items() if tensor is not None}
    with pytest.raises(PretrainedError, match=re.escape(sentence)):
        from_torch(tensors, LAYOUT, LIKE, "the file")
