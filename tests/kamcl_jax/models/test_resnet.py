from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kamcl_jax.models.resnet import ResNet


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
    images = jnp.zeros((2, 256, 256, 3))
    stages, variables = jax.eval_shape(
        lambda: ResNet(depth).init_with_output(jax.random.key(0), images, train=False)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    expected = [(2, 256 // s, 256 // s, c) for s, c in zip((4, 8, 16, 32), channels, strict=True)]
    assert [stage.shape for stage in stages] == expected


IMAGES = np.random.default_rng(0).normal(size=(16, 64, 64, 3)).astype(np.float32)


def gradient_function(rematerialise):
    net = ResNet(34, 4, rematerialise=rematerialise)

    def loss(params, batch_stats):
        variables = {"params": params, "batch_stats": batch_stats}
        stages, updated = net.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
        return sum(jnp.sum(jnp.sin(stage)) for stage in stages), (stages, updated)

    return jax.grad(loss, has_aux=True)


def test_rematerialising_saves_memory_and_changes_neither_parameters_nor_results():
    abstract, remade = (
        jax.eval_shape(partial(ResNet(34, 4, on).init, train=False), jax.random.key(0), IMAGES)
        for on in (False, True)
    )
    assert jax.tree.structure(remade) == jax.tree.structure(abstract)
    generator = np.random.default_rng(0)  # an initialisation takes long to compile
    arguments = [
        jax.tree.map(lambda leaf: 0.3 * generator.normal(size=leaf.shape).astype("f4"), tree)
        for tree in (abstract["params"], abstract["batch_stats"])
    ]
    # XLA's CPU backend would merge the second computation with the first; those for accelerators
    # keep them apart.
    options = {"xla_disable_hlo_passes": "cse,cse_barrier_expander,optimization-barrier-expander"}
    kept, again = (
        jax.jit(gradient_function(on)).lower(*arguments).compile(options) for on in (False, True)
    )
    # Gradients, stages, and the running statistics, moved once.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4),
        again(*arguments),
        kept(*arguments),
    )
    bytes_kept, bytes_again = (x.memory_analysis().temp_size_in_bytes for x in (kept, again))
    assert bytes_again < 0.8 * bytes_kept
