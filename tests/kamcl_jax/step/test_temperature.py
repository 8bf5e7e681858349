"""What the logits learn, their temperature and bias: start, gradient and bounds."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_towers import Towers, create_state, dual_encoder

from kamcl_jax.benchmark.step_parts import random_encodings
from kamcl_jax.models.towers import LOGIT_BIAS, LOGIT_SCALE
from kamcl_jax.step import losses, objective, temperature
from kamcl_jax.step.objective import LossTerm
from kamcl_jax.step.train_step import train_step


def with_scale(state, scale):
    """The state of `Towers` with a logit scale among its parameters."""
    scaled = {**state.params, LOGIT_SCALE: jnp.float32(scale)}
    return state.replace(params=scaled, key_params=jax.tree.map(jnp.copy, scaled))


@pytest.fixture(scope="module")
def stepped(tiny):
    """A function: scale, rate, whether it is learnt -> the state after a step, and its metrics."""
    batch = tiny.batch()

    @partial(jax.jit, static_argnames=("rate", "learns"))
    def step(state, rate, learns):
        optimizer = optax.sgd(rate)
        settings = dataclasses.replace(tiny.settings, learns_temperature=learns)
        return train_step(state, batch, Towers(), optimizer, settings)

    def run(scale, rate=0.0, learns=True):
        state = create_state(optax.sgd(rate))
        return step(with_scale(state, scale) if scale is not None else state, rate, learns)

    return run


def test_it_starts_where_the_config_says_and_stands_beside_the_towers():
    model = dataclasses.replace(dual_encoder(4, 3), initial_temperature=0.05)
    inputs = np.zeros((2, 8, 8, 3)), np.ones((2, 3)), np.ones(2), np.ones((2, 3))
    params = model.init(jax.random.key(0), *inputs, train=False)["params"]
    assert set(params) == {"image", "text", LOGIT_SCALE}
    np.testing.assert_allclose(temperature.learned(params), 0.05, rtol=1e-6)
    plain = dual_encoder(4, 3).init(jax.random.key(0), *inputs, train=False)["params"]
    assert temperature.learned(plain) is None
    for tower in ("image", "text"):
        jax.tree.map(np.testing.assert_array_equal, params[tower], plain[tower])


def test_it_takes_the_place_of_the_fixed_one(stepped, tiny):
    fixed, same = stepped(None)[1], stepped(-np.log(tiny.settings.contrast.temperature))[1]
    for name in ("loss", "contrastive", "triplet"):
        np.testing.assert_allclose(same[name], fixed[name], rtol=1e-5)
    np.testing.assert_allclose(same["temperature"], tiny.settings.contrast.temperature, rtol=1e-5)
    assert "temperature" not in fixed
    assert stepped(0.0)[1]["contrastive"] != fixed["contrastive"]


def test_its_gradient_is_that_of_the_loss(stepped):
    scale, rate, h = 1.0, 1e-3, 1e-2
    moved = (scale - stepped(scale, rate)[0].params[LOGIT_SCALE]) / rate
    up, down = (float(stepped(scale + d)[1]["loss"]) for d in (h, -h))
    np.testing.assert_allclose(moved, (up - down) / (2 * h), rtol=2e-2)


def test_one_that_is_not_learnt_stays_and_counts(stepped):
    state, metrics = stepped(1.0, 1e-3, learns=False)
    assert state.params[LOGIT_SCALE] == 1.0
    np.testing.assert_allclose(metrics["loss"], stepped(1.0, 1e-3)[1]["loss"], rtol=1e-6)


@pytest.mark.parametrize("negatives", ["queue", "batch", "both"])
def test_its_gradient_is_finite_where_keys_are_left_out(negatives):
    queries, keys, queue = (random_encodings(seed, 6, 8, 3).image for seed in range(3))
    left_out = np.zeros((6, 12 if negatives == "both" else 6), bool)
    left_out[0], left_out[2, 3] = True, True

    def loss(temperature):
        past = None if negatives == "batch" else queue
        both = negatives == "both"
        return losses.info_nce(
            losses.contrastive_logits(queries, keys, past, temperature, left_out, with_batch=both)
        )

    gradient, h = jax.grad(loss)(0.1), 1e-3
    difference = (loss(0.1 + h) - loss(0.1 - h)) / (2 * h)
    np.testing.assert_allclose(gradient, difference, rtol=2e-2)


def test_the_scale_stops_at_a_hundred_as_clips_does(stepped):
    state, _ = stepped(7.0)  # above log(100), as a large step might leave it
    np.testing.assert_allclose(jnp.exp(state.params[LOGIT_SCALE]), 100, rtol=1e-5)
    assert stepped(7.0, learns=False)[0].params[LOGIT_SCALE] == 7.0
    assert temperature.clamped(state.params, largest=None) is state.params


def test_the_bias_is_learnt_by_the_sigmoid_loss(tiny):
    terms = (*tiny.settings.terms, LossTerm("sigmoid", objective.pairwise_sigmoid, 1.0))
    settings = dataclasses.replace(tiny.settings, terms=terms)
    batch, rate, h = tiny.batch(), 1.0, 3e-2

    @jax.jit
    def step(bias):
        state = with_scale(create_state(optax.sgd(rate)), 1.0)
        params = {**state.params, LOGIT_BIAS: bias}
        state = state.replace(params=params, key_params=params)
        return train_step(state, batch, Towers(), optax.sgd(rate), settings)

    bias = jnp.float32(-1)
    state, metrics = step(bias)
    assert metrics["bias"] == temperature.learned_bias({LOGIT_BIAS: bias}) == bias
    moved = (bias - state.params[LOGIT_BIAS]) / rate
    up, down = (step(bias + d)[1]["sigmoid"] for d in (h, -h))
    np.testing.assert_allclose(moved, (up - down) / (2 * h), rtol=2e-2)
    assert temperature.learned_bias({}) is None
