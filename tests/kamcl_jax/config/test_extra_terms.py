"""Loss terms that a config names by their import path."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import tiny_config

from kamcl_jax.benchmark.step_parts import random_encodings
from kamcl_jax.config import build, plugins
from kamcl_jax.errors import ConfigError
from kamcl_jax.step import objective
from kamcl_jax.step.key_queue import KeyQueue
from kamcl_jax.step.objective import ContrastSettings


def config_with(function="named", weight=0.5, name="mine"):
    config = tiny_config()
    path = f"own_terms:{function}"
    config.loss.extra_terms[name] = {"function": path, "weight": weight}
    return config


def check(config):
    shapes = build.abstract_batch(config, 3, config.num_concepts)
    plugins.check_extra_terms(config, shapes)


def comparison(queries, keys, batch, step):
    queue = KeyQueue(jnp.eye(7, 4), jnp.int32(0))
    settings = ContrastSettings(0.1)
    return objective.compare(queries, keys, batch, queue, queue, jnp.int32(step), settings)


def test_terms_are_added_by_their_weights_and_shown_before_them():
    config = config_with()
    config.loss.extra_terms.another = {"function": "own_terms:named", "weight": -2.0}
    check(config)
    terms = build.loss_terms(config, steps_per_epoch=3)
    assert [term.name for term in terms] == [
        *("triplet", "contrastive", "alignment"),
        *("another", "mine"),
    ]
    queries, keys = (random_encodings(seed, 5, 4, 3) for seed in (0, 1))
    batch = {"word_concepts": np.eye(5, 3), "image_concepts": np.full((5, 3), 0.5)}
    compared = comparison(queries, keys, batch, step=3)
    with_them, without = (objective.weighted_sum(some, compared) for some in (terms, terms[:3]))
    cosines = (np.asarray(queries.image) * np.asarray(keys.text)).sum(1)
    value = 3 * cosines[:3].sum() / 5
    expected = {**without, "another": value, "mine": value}
    expected["loss"] = without["loss"] + (0.5 - 2) * value
    assert with_them.keys() == expected.keys()
    for name, number in expected.items():
        np.testing.assert_allclose(with_them[name], number, rtol=1e-5, err_msg=name)


def test_a_term_gets_what_its_parameters_are_called_after():
    config = config_with("of_logits")
    check(config)
    (term,) = plugins.extra_terms(config)
    queries, keys = (random_encodings(seed, 5, 4, 3) for seed in (0, 1))
    compared = comparison(queries, keys, {}, step=3)
    expected = np.mean(compared.image_logits.negatives) + np.mean(compared.cosine)
    np.testing.assert_allclose(term.function(compared), expected, rtol=1e-6)


def test_a_term_moves_the_gradient_by_its_weight():
    queries, keys = (random_encodings(seed, 5, 4, 3) for seed in (0, 1))
    batch = {"word_concepts": jnp.ones((5, 3))}

    def loss(queries, weight):
        (term,) = plugins.extra_terms(config_with(weight=weight))
        compared = comparison(queries, keys, batch, step=2)
        return objective.weighted_sum([term], compared)["loss"]

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
        (config_with("nothing"), "config.loss.extra_terms.mine.function is 'own_terms"),
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
    assert set(trained.metrics[0]) <= plugins.RESERVED_METRICS
