import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kamcl_jax.models.resnet import ResNet


def shapes_of(depth, size, width=64):
    images = jnp.zeros((2, size, size, 3))
    return jax.eval_shape(
        lambda: ResNet(depth, width).init_with_output(jax.random.key(0), images, train=False)
    )


# torchvision's parameter counts without the classifier.
@pytest.mark.parametrize(
    ("depth", "parameters", "channels"),
    [
        (18, 11_176_512, (64, 128, 256, 512)),
        (34, 21_284_672, (64, 128, 256, 512)),
        (50, 23_508_032, (256, 512, 1024, 2048)),
        (101, 42_500_160, (256, 512, 1024, 2048)),
    ],
)
def test_parameters_and_stages_are_those_of_torchvision(depth, parameters, channels):
    stages, variables = shapes_of(depth, 256)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    expected = [(2, 256 // s, 256 // s, c) for s, c in zip((4, 8, 16, 32), channels, strict=True)]
    assert [stage.shape for stage in stages] == expected


def test_any_input_size_gives_four_stages():
    stages, _ = shapes_of(18, 75, width=4)
    assert [stage.shape[1] for stage in stages] == [19, 10, 5, 3]


IMAGES = np.random.default_rng(0).normal(size=(16, 64, 64, 3)).astype(np.float32)


def gradient_function(rematerialise, train=True):
    net = ResNet(34, 4, rematerialise=rematerialise)

    def loss(params, batch_stats):
        variables = {"params": params, "batch_stats": batch_stats}
        stages, updated = net.apply(variables, IMAGES, train=train, mutable=["batch_stats"])
        return sum(jnp.sum(jnp.sin(stage)) for stage in stages), (stages, updated)

    return jax.grad(loss, has_aux=True)


@pytest.fixture(scope="module")
def variables():
    init = jax.jit(lambda key: ResNet(34, 4).init(key, IMAGES, train=False))
    return init(jax.random.key(0))


@pytest.fixture(scope="module")
def compiled(variables):
    """The compiled gradients without and with rematerialisation."""
    # XLA's CPU backend would merge the second computation with the first; those for accelerators
    # keep them apart.
    options = {"xla_disable_hlo_passes": "cse,cse_barrier_expander,optimization-barrier-expander"}
    arguments = variables["params"], variables["batch_stats"]
    return [
        jax.jit(gradient_function(rematerialise)).lower(*arguments).compile(options)
        for rematerialise in (False, True)
    ]


def test_rematerialising_changes_neither_parameters_nor_results(variables, compiled):
    remade = jax.eval_shape(
        lambda: ResNet(34, 4, rematerialise=True).init(jax.random.key(0), IMAGES, train=False)
    )
    assert jax.tree.structure(remade) == jax.tree.structure(variables)
    kept, again = (function(variables["params"], variables["batch_stats"]) for function in compiled)
    # Gradients, stages, and the running statistics, moved once.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), again, kept)


def test_rematerialising_saves_memory_of_the_compiled_gradient(compiled):
    kept, again = (function.memory_analysis().temp_size_in_bytes for function in compiled)
    assert again < 0.8 * kept
