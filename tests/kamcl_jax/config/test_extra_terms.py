"""Loss terms that a config names by their import path."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import tiny_config

from kamcl_jax.benchmark.step_parts import random_encodings
from kamcl_jax.config import build, extra_terms
from kamcl_jax.errors import ConfigError
from kamcl_jax.step import objective
from kamcl_jax.step.objective import ExtraTerm


def config_with(function="named", weight=0.5, name="mine"):
    config = tiny_config()
    path = f"own_terms:{function}"
    config.loss.extra_terms[name] = {"function": path, "weight": weight}
    return config


def check(config):
    shapes = build.abstract_batch(config, 3, config.num_concepts)
    extra_terms.check(config, shapes)


def test_terms_are_added_by_their_weights_and_shown_before_them():
    config = config_with()
    config.loss.extra_terms.another = {
        "function": "own_terms:named",
        "weight": -2.0,
    }
    check(config)
    terms = build.make_settings(config, steps_per_epoch=3).objective.extra_terms
    assert [(term.name, term.weight) for term in terms] == [("another", -2.0), ("mine", 0.5)]
    queries, keys = (random_encodings(seed, 5, 4, 3) for seed in (0, 1))
    batch = {"word_concepts": np.eye(5, 3)}
    added = objective.add_extra_terms(
        {"loss": 7.0, "triplet": 1.0}, queries, keys, batch, jnp.int32(3), terms
    )
    cosines = (np.asarray(queries.image) * np.asarray(keys.text)).sum(1)
    value = 3 * cosines[:3].sum() / 5
    expected = {"loss": 7 + (0.5 - 2) * value, "triplet": 1, "another": value, "mine": value}
    assert added.keys() == expected.keys()
    for name, number in expected.items():
        np.testing.assert_allclose(added[name], number, rtol=1e-5)


def test_a_term_moves_the_gradient_by_its_weight():
    queries, keys = (random_encodings(seed, 5, 4, 3) for seed in (0, 1))
    batch, step = {"word_concepts": jnp.ones((5, 3))}, jnp.int32(2)

    def loss(queries, weight):
        terms = [ExtraTerm("mine", named, weight)]
        metrics = {"loss": jnp.sum(queries.text)}
        return objective.add_extra_terms(metrics, queries, keys, batch, step, terms)["loss"]

    without, once, twice = (jax.grad(loss)(queries, weight).image for weight in (0.0, 1.0, 2.0))
    assert not np.any(without)
    assert np.any(once)
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (config_with("vector"), "to get a differentiable f32[]: TypeError: Gradient only defined"),
        (config_with("three"), "config.loss.extra_terms.mine.function cannot be called with (quer"),
        (config_with("of_ids"), "KeyError: 'image_id'"),
        (config_with("nothing"), "config.loss.extra_terms.mine.function is 'test_extra_terms_from"),
        (config_with(name="triplet"), "config.loss.extra_terms.triplet cannot be called so"),
        (config_with(weight=float("nan")), "config.loss.extra_terms.mine.weight is nan"),
        (
            config_with(weight="1"),
            "config.loss.extra_terms.mine.weight is '1'; it must be a number",
        ),
    ],
)
def test_a_term_that_cannot_be_is_refused_in_one_sentence(config, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)) as refused:
        check(config)
    assert "\n" not in str(refused.value)


def test_a_term_has_two_fields():
    config = tiny_config()
    config.loss.extra_terms.mine = {"function": "own_terms:named"}
    with pytest.raises(ConfigError, match="mine must have the two fields function and weight"):
        check(config)


def test_ids_are_there_for_terms_where_false_negatives_are_left_out():
    config = config_with("of_ids")
    config.loss.mask_false_negatives = True
    check(config)


def test_no_term_can_have_the_name_of_a_metric(trained):
    assert set(trained.metrics[0]) <= extra_terms.TAKEN
