"""Attention against its plain twin, and blocks that are computed again."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kamcl_jax.models.clip.presets import TransformerSizes
from kamcl_jax.models.clip.transformer import Transformer, quick_gelu

SIZES = TransformerSizes(width=16, layers=2, heads=4, mlp_width=32)
TOKENS = np.random.default_rng(0).normal(size=(2, 7, 16)).astype(np.float32)


def value_and_gradient(model, params, tokens):
    """The sum of squares of a transformer's output, and the gradient by all that goes in."""

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def loss(params, tokens):
        return jnp.sum(model.apply(params, tokens).astype(jnp.float32) ** 2)

    return loss(params, tokens)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("batch", "count", "dtype", "tolerance"),
    [(2, 7, jnp.float32, 1e-5), (2, 7, jnp.bfloat16, 3e-2), (3, 50, jnp.float32, 1e-5)],
)
def test_attention_is_its_plain_twin_in_the_whole_and_its_gradient(
    batch, count, causal, dtype, tolerance
):
    drawn = np.random.default_rng(count).normal(size=(batch, count, 16)).astype(np.float32)

    def make(implementation):
        return Transformer(SIZES, "gelu", 1e-5, causal=causal, implementation=implementation)

    params = make(None).init(jax.random.key(0), drawn)
    params, tokens = jax.tree.map(lambda x: jnp.asarray(x, dtype), (params, drawn))
    found, expected = (
        jax.tree.leaves(value_and_gradient(make(one), params, tokens)) for one in (None, "plain")
    )
    for a, b in zip(found, expected, strict=True):
        a, b = (np.asarray(x, np.float32) for x in (a, b))
        np.testing.assert_allclose(a, b, atol=tolerance * max(np.abs(b).max(), 1))


def test_a_causal_token_sees_those_before_it_alone():
    for causal in (True, False):
        model = Transformer(SIZES, "gelu", 1e-5, causal=causal)
        params = model.init(jax.random.key(0), TOKENS)
        changed = TOKENS.copy()
        changed[:, 4] = -changed[:, 4]
        moved = (
            np.abs(model.apply(params, changed) - model.apply(params, TOKENS)).max((0, 2)) > 1e-6
        )
        assert moved.tolist() == ([False] * 4 + [True] * 3 if causal else [True] * 7)


def test_blocks_that_are_computed_again_change_nothing():
    kept, again = (Transformer(SIZES, "gelu", 1e-5, rematerialise=r) for r in (False, True))
    params = kept.init(jax.random.key(0), TOKENS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        value_and_gradient(again, params, TOKENS),
        value_and_gradient(kept, params, TOKENS),
    )


def test_quick_gelu_is_a_gate_of_a_sigmoid():
    x = np.linspace(-3, 3, 7, dtype=np.float32)
    np.testing.assert_allclose(quick_gelu(x), x / (1 + np.exp(-1.702 * x)), rtol=1e-6)
