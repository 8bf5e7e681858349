"""Muon: kernels get updates without a preferred direction, and the rest is Adam's."""

import jax
import numpy as np
import optax
import pytest

from kamcl_jax.step import optimizer

RATE, EPSILON = 1e-2, 1e-8


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("f")


def steps(transformation, params, gradients):
    """The updates of one step after the other."""

    @jax.jit
    def step(state, gradient):
        return transformation.update(gradient, state, params)

    state, updates = transformation.init(params), []
    for gradient in gradients:
        update, state = step(state, gradient)
        updates.append(jax.device_get(update))
    return updates


def of_muon(gradients, weight_decay=0.0, params=None):
    params = params or jax.tree.map(np.zeros_like, gradients[0])
    return steps(optimizer.muon(RATE, EPSILON, weight_decay), params, gradients)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (7, 7)])
def test_a_kernels_update_is_as_long_in_every_direction_as_adams_usually_is(shape):
    (update,) = of_muon([{"kernel": draw(0, *shape)}])
    lengths = np.linalg.svd(update["kernel"], compute_uv=False)
    usual = 0.2 * RATE * np.sqrt(max(shape))
    # Newton and Schulz' iteration brings singular values near 1, not to it.
    assert np.all((lengths > 0.5 * usual) & (lengths < 1.3 * usual))
    before = np.linalg.svd(draw(0, *shape), compute_uv=False)
    assert np.ptp(lengths) / lengths.max() < np.ptp(before) / before.max()


def test_an_update_goes_down_and_keeps_the_directions_of_its_gradient():
    gradient = draw(1, 6, 4)
    (update,) = of_muon([{"kernel": gradient}])
    left, _, right = np.linalg.svd(gradient, full_matrices=False)
    turned = left.T @ update["kernel"] @ right.T
    np.testing.assert_allclose(turned - np.diag(np.diagonal(turned)), 0, atol=1e-6)
    assert np.all(np.diagonal(turned) < 0)


def test_convolutions_are_matrices_of_their_patches_and_stacks_are_many():
    gradients = [draw(seed, 3, 3, 4, 8) for seed in (0, 1)]
    flat = of_muon([{"kernel": gradient.reshape(36, 8)} for gradient in gradients])
    for update, expected in zip(
        of_muon([{"kernel": gradient} for gradient in gradients]), flat, strict=True
    ):
        found = update["kernel"].reshape(36, 8)
        np.testing.assert_allclose(found, expected["kernel"], rtol=1e-4, atol=1e-7)
    stack = draw(2, 3, 6, 5)
    (together,) = of_muon([{"input_kernel": stack}])
    for number, gradient in enumerate(stack):
        (alone,) = of_muon([{"kernel": gradient}])
        np.testing.assert_allclose(
            together["input_kernel"][number], alone["kernel"], rtol=1e-4, atol=1e-7
        )


def test_what_is_no_kernel_is_updated_by_adam():
    gradients = [
        {"embedding": draw(seed, 9, 4), "bias": draw(seed, 5), "input_bias": draw(seed, 3, 5)}
        for seed in range(3)
    ]
    adam = optax.adam(RATE, eps=EPSILON, nesterov=True)
    expected = steps(adam, jax.tree.map(np.zeros_like, gradients[0]), gradients)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), of_muon(gradients), expected
    )


def test_kernels_alone_decay():
    params = {"kernel": np.ones((2, 3), "f"), "embedding": np.ones((2, 3), "f")}
    zeros = jax.tree.map(np.zeros_like, params)
    (update,) = of_muon([zeros], weight_decay=0.1, params=params)
    np.testing.assert_allclose(update["kernel"], np.full((2, 3), -0.1 * RATE), rtol=1e-5)
    assert not np.any(update["embedding"])
