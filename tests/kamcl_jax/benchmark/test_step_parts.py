"""The parts of a step: stand-ins take a tower's place, and the parts add up."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_towers import dual_encoder

from kamcl_jax.benchmark import step_parts
from kamcl_jax.benchmark.step_parts import LEFT_OUT, PARTS, REST, WHOLE, own_statistics
from kamcl_jax.benchmark.trials import Timing
from kamcl_jax.config.build import UNOPTIMISED
from kamcl_jax.step.train_step import train_step

EMBEDDING, CONCEPTS = 4, 3
PLAIN = dual_encoder(EMBEDDING, CONCEPTS)
INPUTS = (jnp.ones((2, 5, 5, 3)), jnp.ones((2, 6)), jnp.ones(2), jnp.ones((2, CONCEPTS)))


def apply(model, variables):
    return model.apply(variables, *INPUTS, train=True, mutable=["batch_stats"])


def test_a_stand_in_takes_one_towers_place_and_asks_for_one_gradient():
    init = jax.jit(partial(PLAIN.init, train=False), compiler_options=UNOPTIMISED)
    variables = init(jax.random.key(0), *INPUTS)
    model = step_parts.replaceable(PLAIN)
    jax.tree.map(np.testing.assert_array_equal, apply(model, variables), apply(PLAIN, variables))
    kept = step_parts.stand_in(3, EMBEDDING, CONCEPTS)
    statistics = {**variables["batch_stats"], "image": {"stand_in": kept}}

    def total(params):
        outputs, updated = apply(model, {"params": params, "batch_stats": statistics})
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(outputs)), (outputs, updated)

    gradients, (outputs, updated) = jax.grad(total, has_aux=True)(variables["params"])
    (embedding, concepts), text = outputs
    assert embedding.shape == (2, EMBEDDING)
    assert concepts.shape == (2, CONCEPTS)
    jax.tree.map(np.testing.assert_array_equal, text, apply(PLAIN, variables)[0][1])
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"]["image"]["stand_in"], kept)
    touched = [leaf for leaf in jax.tree.leaves(gradients["image"]) if np.any(leaf != 0)]
    assert len(touched) == 1


def test_the_parts_and_the_rest_are_the_whole():
    without = {"image queries": 4.0, "image keys": 8.5, "text": 10.5}
    alone = {"augmentation": 0.25, "losses": 0.5, "update": 1.0}
    assert without.keys() | alone.keys() == set(PARTS)
    seconds = {WHOLE: 10.0, **without, **alone}
    parts = step_parts.split({name: Timing((value,)) for name, value in seconds.items()})
    assert list(parts) == [*PARTS, REST]
    assert parts["image queries"] == 6
    assert parts["text"] == -0.5  # told as it is
    assert parts["losses"] == 0.5
    assert parts[REST] == pytest.approx(1.25)
    assert sum(parts.values()) == pytest.approx(10)


def test_a_step_without_a_tower_keeps_the_state_and_has_less_to_do(tiny):
    model = step_parts.replaceable(tiny.model)
    whole = jax.eval_shape(tiny.state)
    sizes = (tiny.batch()["word_concepts"].shape[1], whole.image_queue.keys.shape[1])

    def products(state):
        def step(state, batch):
            return train_step(state, batch, model, tiny.optimizer, tiny.settings)

        traced = jax.jit(step).trace(state, tiny.batch())
        assert jax.tree.structure(traced.out_info[0]) == jax.tree.structure(state)
        return str(traced.jaxpr).count("dot_general")

    all_products = products(whole)
    for part in LEFT_OUT:
        own = jax.eval_shape(lambda state, part=part: own_statistics(part, state, *sizes), whole)
        assert products(whole.replace(**own)) < all_products
