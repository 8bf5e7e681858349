"""The GRU against a plain loop, its hand-written gradient, and its variational dropout."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kamcl_jax.config.build import UNOPTIMISED
from kamcl_jax.models import skip_thoughts
from kamcl_jax.models.skip_thoughts import SkipThoughts, gru_states
from kamcl_jax.step.encoding import cast_floats

STEPS, BATCH, HIDDEN = 7, 3, 5
LENGTHS = jnp.array([6, 2, 4])


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(jax.random.key(0), 3)
    kernel = 0.5 * jax.random.normal(keys[0], (3, HIDDEN, HIDDEN))
    projected = jax.random.normal(keys[1], (STEPS, 3, BATCH, HIDDEN))
    mask = jax.random.bernoulli(keys[2], 0.75, (3, BATCH, HIDDEN)) / 0.75
    return kernel, projected, mask


def plain_gru(kernel, projected, mask, lengths=LENGTHS):
    h, states = jnp.zeros((BATCH, HIDDEN)), []
    for t in range(STEPS):
        r, u, n = ((mask[g] * h) @ kernel[g] for g in range(3))
        reset, update = jax.nn.sigmoid(projected[t, 0] + r), jax.nn.sigmoid(projected[t, 1] + u)
        new = (1 - update) * jnp.tanh(projected[t, 2] + reset * n) + update * h
        h = jnp.where((t < lengths)[:, None], new, 0)
        states.append(h)
    return jnp.stack(states)


def test_states_and_the_written_gradient_equal_those_of_a_plain_loop(inputs):
    np.testing.assert_allclose(gru_states(*inputs, LENGTHS), plain_gru(*inputs), atol=1e-6)
    kernel, projected, mask = inputs
    weights = jax.random.normal(jax.random.key(9), (STEPS, BATCH, HIDDEN))

    def gradient(function):
        return jax.grad(lambda k, p: jnp.sum(weights * function(k, p, mask, LENGTHS)), (0, 1))(
            kernel, projected
        )

    for got, expected in zip(gradient(gru_states), gradient(plain_gru), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
        assert np.any(got)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Has this device run what a GPU runs."""
    monkeypatch.setattr(skip_thoughts, "_run", skip_thoughts._run_unrolled)
    monkeypatch.setattr(skip_thoughts, "_run_back", skip_thoughts._run_back_unrolled)


@pytest.mark.parametrize("dropped", [True, False])
@pytest.mark.parametrize("unrolled", [skip_thoughts.UNROLLED, 3])
def test_a_gpu_runs_the_plain_loop_s_states_and_gradients(
    inputs, as_on_a_gpu, monkeypatch, unrolled, dropped
):
    monkeypatch.setattr(skip_thoughts, "UNROLLED", unrolled)
    kernel, projected, mask = inputs
    mask = mask if dropped else jnp.ones((3, 1, 1))
    weights = jax.random.normal(jax.random.key(9), (STEPS, BATCH, HIDDEN))

    def value_and_gradients(function):
        def loss(kernel, projected):
            states = function(kernel, projected, mask, LENGTHS)
            return jnp.sum(weights * states), states

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(kernel, projected)

    ours, expected = value_and_gradients(gru_states), value_and_gradients(plain_gru)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), ours, expected)


def test_a_gpu_takes_the_steps_without_a_loop(inputs):
    kernel, projected, mask = inputs

    def gradient(kernel, projected):
        states = partial(gru_states, mask=mask, lengths=LENGTHS)
        return jax.grad(lambda *x: states(*x).sum(), (0, 1))(kernel, projected)

    def lowered(platform):
        traced = jax.jit(gradient).trace(kernel, projected)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "stablehlo.while" not in lowered("cuda")
    assert lowered("tpu").count("stablehlo.while") == 2


@pytest.fixture(scope="module")
def encoder():
    module = SkipThoughts(num_tokens=9, word_width=4, hidden_width=6, dropout=0.5)
    tokens = jnp.array([[3, 5, 2, 0, 0], [1, 2, 3, 4, 8]])
    init = jax.jit(partial(module.init, train=False), compiler_options=UNOPTIMISED)
    return module, init(jax.random.key(0), tokens, jnp.array([3, 5]))


def test_the_padding_row_is_zero_and_gets_no_gradient(encoder):
    module, variables = encoder
    tokens, lengths = jnp.array([[3, 5, 0, 0, 0]]), jnp.array([5])

    def loss(params):
        return module.apply({"params": params}, tokens, lengths, train=False).sum()

    gradient = jax.grad(loss)(variables["params"])["embedding"]
    assert not np.any(variables["params"]["embedding"][0])
    assert not np.any(gradient[0])
    assert np.any(gradient[3])


def test_nothing_is_dropped_in_evaluation(encoder):
    module, variables = encoder
    tokens, lengths = jnp.array([[1, 2, 3, 4, 8]]), jnp.array([5])
    evaluated = module.apply(variables, tokens, lengths, train=False)
    dropless = SkipThoughts(num_tokens=9, word_width=4, hidden_width=6, dropout=0.0)
    rngs = {"dropout": jax.random.key(0)}
    trained = dropless.apply(variables, tokens, lengths, train=True, rngs=rngs)
    np.testing.assert_allclose(evaluated, trained, atol=1e-6)


def test_six_masks_of_unit_mean_one_for_words_and_states_of_each_gate(monkeypatch):
    # With identity kernels and words of one constant, a gate's inputs are its masks.
    width = 200
    module = SkipThoughts(num_tokens=2, word_width=width, hidden_width=width, dropout=0.25)
    seen = {}

    def record(kernel, projected, mask, lengths):
        seen["words"], seen["states"] = projected, mask
        return jnp.zeros((projected.shape[0], *projected.shape[2:]))

    monkeypatch.setattr(skip_thoughts, "gru_states", record)
    identity = jnp.broadcast_to(jnp.eye(width), (3, width, width))
    params = {"embedding": jnp.ones((2, width)), "input_bias": jnp.zeros((3, width))}
    params |= {"input_kernel": identity, "recurrent_kernel": identity}
    tokens, lengths = jnp.ones((4, 3), jnp.int32), jnp.full(4, 3)
    rngs = {"dropout": jax.random.key(0)}
    module.apply({"params": params}, tokens, lengths, train=True, rngs=rngs)
    first, *later = np.asarray(seen["words"])
    for step in later:  # all steps of a sequence share its masks
        np.testing.assert_array_equal(step, first)
    drawn = np.stack([*first, *np.asarray(seen["states"])])
    assert drawn.shape == (6, 4, width)
    np.testing.assert_allclose(np.unique(drawn), [0, 1 / 0.75], rtol=1e-6)
    np.testing.assert_allclose(drawn.mean((1, 2)), 1, atol=0.08)
    assert len({mask.tobytes() for mask in drawn}) == 6


@pytest.mark.parametrize("device", ["a CPU", "a GPU"])
def test_states_and_gradients_in_bfloat16_are_near_those_of_float32(inputs, device, request):
    if device == "a GPU":
        request.getfixturevalue("as_on_a_gpu")
    weights = jax.random.normal(jax.random.key(9), (STEPS, BATCH, HIDDEN))

    def run(inputs):
        kernel, projected, mask = inputs

        def loss(kernel, projected):
            states = gru_states(kernel, projected, mask, LENGTHS)
            return jnp.sum(weights * states), states

        return jax.grad(loss, (0, 1), has_aux=True)(kernel, projected)

    got, expected = run(cast_floats(inputs, jnp.bfloat16)), run(inputs)
    for x, wanted in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert x.dtype == jnp.bfloat16
        error = np.linalg.norm(x.astype(jnp.float32) - wanted) / np.linalg.norm(wanted)
        assert error < 2e-2


def test_gradients_of_a_frequent_word_are_summed_in_float32(encoder):
    module, variables = encoder
    params = cast_floats(variables["params"], jnp.bfloat16)

    def gradient(rows):
        def loss(params):
            tokens, lengths = jnp.full((rows, 1), 3), jnp.ones(rows, jnp.int32)
            return module.apply({"params": params}, tokens, lengths, train=False).sum()

        return jax.grad(loss)(params)["embedding"][3].astype(jnp.float32)

    # In bfloat16, 1 + 1 + ... ends at 256.
    np.testing.assert_allclose(gradient(2048), 2048 * gradient(1), rtol=1e-2)
