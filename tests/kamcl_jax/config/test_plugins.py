"""Names that a config imports, and losses of your own."""

import re
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import own_terms
import pytest
from tiny_clip import TINY
from tiny_model import tiny_config

from kamcl_jax.benchmark.step_parts import random_encodings
from kamcl_jax.config import build, plugins, recipe
from kamcl_jax.config.plugins import import_named, refuse_code_inside
from kamcl_jax.errors import ConfigError
from kamcl_jax.models.clip import presets
from kamcl_jax.models.towers import ImageEncoder
from kamcl_jax.step import objective
from kamcl_jax.step.key_queue import KeyQueue
from kamcl_jax.step.objective import ContrastSettings
from kamcl_jax.step.train_step import train_step


def test_a_path_names_what_is_in_a_module():
    path = "kamcl_jax.models.towers:ImageEncoder"
    assert import_named(path, "field") is ImageEncoder
    assert import_named(f"{path}.clone", "field") is ImageEncoder.clone


def test_modules_are_found_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "found_here.py").write_text("answer = 42\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert import_named("found_here:answer", "field") == 42


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("kamcl_jax", "config.x is 'kamcl_jax'; it must be 'package.module:Name'"),
        (":Name", "config.x is ':Name'; it must be 'package.module:Name'"),
        (
            "no_such.module:Name",
            "config.x is 'no_such.module:Name', which cannot be imported: "
            "ModuleNotFoundError: No module named 'no_such'",
        ),
        (
            "kamcl_jax.step.losses:nothing",
            "cannot be imported: AttributeError: module 'kamcl_jax.step.losses' has no attribute",
        ),
        ("fails_when_imported:Name", "cannot be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_in_one_sentence(
    path, sentence, tmp_path, monkeypatch
):
    (tmp_path / "fails_when_imported.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(sentence)) as refused:
        import_named(path, "config.x")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "working_directory"),
    [
        ("brought:Name", "model"),
        ("package.module:Name", "model"),
        ("namespace.module:Name", "model"),
        ("model.brought:Name", "."),
    ],
)
def test_code_that_lies_in_a_folder_is_refused_and_not_run(
    path, working_directory, tmp_path, monkeypatch
):
    model = tmp_path / "model"
    for name in ("brought.py", "package/__init__.py", "package/module.py", "namespace/module.py"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("raise SystemExit('it was run')\n")
    monkeypatch.chdir(tmp_path / working_directory)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ConfigError, match=f"field is '{path}', which lies in .*model itself"):
        refuse_code_inside(model, path, "field")


def test_code_beside_a_folder_is_not_of_it(tmp_path, monkeypatch):
    (tmp_path / "beside_it.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for path in (
        "beside_it:Name",
        "kamcl_jax.step.losses:info_nce",
        "json:loads",
        "sys:path",
        "no",
        "",
    ):
        refuse_code_inside(tmp_path / "model", path, "field")


def config_with_term(function="named", weight=0.5, name="mine"):
    config = tiny_config()
    path = f"own_terms:{function}"
    config.loss.extra_terms[name] = {"function": path, "weight": weight}
    return config


def comparison(queries, keys, batch, step):
    queue = KeyQueue(jnp.eye(7, 4), jnp.int32(0))
    settings = ContrastSettings(0.1)
    return objective.compare(queries, keys, batch, queue, queue, jnp.int32(step), settings)


def test_terms_are_added_by_their_weights_and_shown_before_them():
    config = config_with_term()
    config.loss.extra_terms.another = {"function": "own_terms:named", "weight": -2.0}
    build.check_with_devices(config)
    terms = recipe.loss_terms(config, steps_per_epoch=3)
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
    config = config_with_term("of_logits")
    build.check_with_devices(config)
    (term,) = plugins.extra_terms(config)
    queries, keys = (random_encodings(seed, 5, 4, 3) for seed in (0, 1))
    compared = comparison(queries, keys, {}, step=3)
    expected = np.mean(compared.image_logits.negatives) + np.mean(compared.cosine)
    np.testing.assert_allclose(term.function(compared), expected, rtol=1e-6)


def test_a_term_moves_the_gradient_by_its_weight():
    queries, keys = (random_encodings(seed, 5, 4, 3) for seed in (0, 1))
    batch = {"word_concepts": jnp.ones((5, 3))}

    def loss(queries, weight):
        (term,) = plugins.extra_terms(config_with_term(weight=weight))
        compared = comparison(queries, keys, batch, step=2)
        return objective.weighted_sum([term], compared)["loss"]

    without, once, twice = (jax.grad(loss)(queries, weight).image for weight in (0.0, 1.0, 2.0))
    assert not np.any(without)
    assert np.any(once)
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            config_with_term("vector"),
            "to get a differentiable f32[]: TypeError: Gradient only defined",
        ),
        (
            config_with_term("three"),
            "config.loss.extra_terms.mine.function cannot be called with (quer",
        ),
        (config_with_term("of_ids"), "KeyError: 'image_id'"),
        (config_with_term("of_bias"), "f32[]: TypeError: unsupported operand"),
        (config_with_term("nothing"), "config.loss.extra_terms.mine.function is 'own_terms"),
        (config_with_term(name="triplet"), "config.loss.extra_terms.triplet cannot be called so"),
        (config_with_term(weight=float("nan")), "config.loss.extra_terms.mine.weight is nan"),
        (
            config_with_term(weight="1"),
            "config.loss.extra_terms.mine.weight is '1'; it must be a number",
        ),
    ],
)
def test_a_term_that_cannot_be_is_refused_in_one_sentence(config, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)) as refused:
        build.check_with_devices(config)
    assert "\n" not in str(refused.value)


def test_a_term_has_two_fields():
    config = tiny_config()
    config.loss.extra_terms.mine = {"function": "own_terms:named"}
    with pytest.raises(ConfigError, match="mine must have the two fields function and weight"):
        build.check_with_devices(config)


@pytest.mark.parametrize(
    ("function", "fields"),
    [
        ("of_ids", {"mask_false_negatives": True}),
        ("of_same_pairs", {"mask_false_negatives": True}),
        ("of_bias", {"sigmoid_weight": 1.0}),
        ("of_shares", {"negatives": "batch", "positives": "concepts", "concept_share": 0.1}),
        ("of_the_fixed_temperature", {}),
    ],
)
def test_a_term_may_use_all_that_the_config_has_training_give_it(function, fields):
    config = config_with_term(function)
    config.loss.update(fields)
    build.check_with_devices(config)


SIZES = {"encoders.preset": "clip", "image_size": 20, "embedding_size": 8}
"""Those of the tiny CLIP."""


def metrics_of_a_step(config):
    """The shapes of what a training step measures."""
    step = partial(
        train_step,
        model=build.make_model(config, 2, config.num_concepts),
        optimizer=recipe.make_optimizer(config, 1),
        settings=recipe.make_settings(config, 1),
    )
    _, metrics = jax.eval_shape(
        step,
        build.abstract_state(config, 2, config.num_concepts),
        build.abstract_batch(config, 1, config.num_concepts),
    )
    return metrics


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"loss.mask_false_negatives": True, "loss.sigmoid_weight": 1.0, "learn_temperature": True},
    ],
)
def test_a_term_is_tried_on_what_a_step_gives_it(fields, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "clip", TINY["clip"])
    monkeypatch.setattr(own_terms, "SEEN", [])
    config = config_with_term("of_everything")
    config.update_from_flattened_dict({**SIZES, **fields})
    build.check_with_devices(config)
    metrics_of_a_step(config)
    assert len(own_terms.SEEN) == 2
    assert own_terms.SEEN[0] == own_terms.SEEN[1]


def test_a_term_that_can_only_go_forwards_is_refused():
    with pytest.raises(ConfigError, match=r"differentiable .*Reverse-mode differentiation"):
        build.check_with_devices(config_with_term("of_logits_one_by_one"))


OF_THE_LOOP = {"step", "epoch", "images_per_second"}


def test_no_term_can_have_the_name_of_a_metric(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "clip", TINY["clip"])
    config = tiny_config()
    every_option = {
        "loss.sigmoid_weight": 1.0,
        "loss.batch_weight": 1.0,
        "loss.mask_false_negatives": True,
        "learn_temperature": True,
    }
    config.update_from_flattened_dict({**SIZES, **every_option})
    assert metrics_of_a_step(config).keys() | OF_THE_LOOP == plugins.RESERVED_METRICS
