"""A batch encoded whole and in parts: gradient accumulation under losses that see the whole."""

import dataclasses
from functools import partial

import jax
import numpy as np
import optax
import pytest
from linear_towers import Towers, create_state

from kamcl_jax.step.encoding import encode
from kamcl_jax.step.train_step import train_step

KEY = jax.random.key(0)
ENCODED = ("image", "tokens", "lengths", "word_concepts")


@pytest.fixture(scope="module")
def towers_state():
    return create_state(optax.sgd(1.0))


@pytest.mark.parametrize("parts", [2, 4])
def test_gradients_in_parts_are_those_of_the_whole_batch(tiny, towers_state, parts):
    def gradients(parts):
        settings = dataclasses.replace(tiny.settings, microbatches=parts)
        step = partial(
            train_step,
            model=Towers(),
            optimizer=optax.sgd(1.0),
            settings=settings,
            observe=lambda gradients, compared: {"gradients": gradients, "compared": compared},
        )
        return jax.jit(step)(towers_state, tiny.batch())

    (after_whole, whole), (after, in_parts) = gradients(1), gradients(parts)
    assert whole["triplet"] > 0.1
    same = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(same, in_parts, whole)
    # The mean of the parts' statistics is the whole batch's.
    jax.tree.map(same, after.batch_stats, after_whole.batch_stats)
    np.testing.assert_allclose(after.image_queue.keys, after_whole.image_queue.keys, atol=1e-6)


def test_parts_have_batch_statistics_and_dropout_of_their_own(tiny):
    images = np.random.default_rng(0).normal(size=(8, 64, 64, 3)).astype(np.float32)
    batch = {**tiny.batch(), "image": images}
    model = Towers(noise=True)
    variables = model.init(KEY, *(batch[name] for name in ENCODED), train=False)
    halves = [{name: array[start::2] for name, array in batch.items()} for start in (0, 1)]

    @partial(jax.jit, static_argnames="microbatches")
    def run(batch, key, microbatches=1):
        return encode(
            model,
            *(variables[name] for name in ("params", "batch_stats")),
            batch,
            key,
            microbatches=microbatches,
        )

    together, stats = run(batch, KEY, microbatches=2)
    keys = jax.random.split(KEY, 2)
    apart = [run(half, key) for half, key in zip(halves, keys, strict=True)]
    for start, (encodings, _) in enumerate(apart):
        for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(encodings), strict=True):
            np.testing.assert_allclose(ours[start::2], theirs, rtol=1e-4, atol=1e-5)
    means = jax.tree.map(lambda a, b: (a + b) / 2, apart[0][1], apart[1][1])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), stats, means)
