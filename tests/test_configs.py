"""Every config file and variant: accepted, and different from its neighbours only as it says."""

import importlib
from pathlib import Path

import pytest

from configs import base, variants
from input_pipeline.datasets import BUILDERS
from kamcl_jax.config.checks import check_config
from kamcl_jax.config.encoders import check_encoders
from kamcl_jax.config.fields import flatten
from kamcl_jax.config.recipe import compute_dtype

ROOT = Path(__file__).resolve().parents[1]
SHARED = {"__init__", "base", "variants"}
DATA_SETS = sorted({path.stem for path in (ROOT / "configs").glob("*.py")} - SHARED)
PUBLISHED = [name for name in DATA_SETS if name != "synthetic"]


def load(name, *variant):
    return importlib.import_module(f"configs.{name}").get_config(*variant)


def fields(name, *variant):
    return flatten(load(name, *variant))


def differing(one, other):
    return {name: value for name, value in other.items() if one.get(name) != value}


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_config_is_accepted_and_has_no_field_of_its_own(name):
    config = load(name)
    check_config(config)
    assert config.data.name == name
    assert config.data.name in BUILDERS
    own = flatten(config).keys() ^ flatten(base.get_config()).keys()
    assert all(field.startswith("data.options.") for field in own)


@pytest.mark.parametrize("variant", variants.VARIANTS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_variant_is_accepted(name, variant):
    config = load(name, variant)
    check_config(config)
    check_encoders(config, compute_dtype(config))


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_depth_changes_the_image_network_alone(name, depth):
    changes = {} if depth == 18 else {"image_encoder.depth": depth}
    assert differing(fields(name), fields(name, f"resnet{depth}")) == changes


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_release_variant_sets_the_departures_and_nothing_else(name):
    assert differing(fields(name), fields(name, "release")) == {
        "momentum_coverage": "release",
        "caption_padding": "release",
        "data.labels_by": "position",
        "data.pad_concepts": True,
        "data.vocabulary_from": "train_and_test",
        "evaluation.ties": "argsort",
    }
    assert fields(name, "release")["image_encoder.depth"] == 18


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_strong_recipe_changes_how_a_model_learns_and_not_the_model(name):
    pairs = [
        ("small", "small_strong", variants.SMALL_STRONG),
        ("resnet18", "strong", variants.STRONG),
    ]
    for paper, strong, recipe in pairs[: 1 if name == "synthetic" else 2]:
        changes = differing(fields(name, paper), fields(name, strong))
        assert changes == recipe
        assert {field.partition(".")[0] for field in changes} <= {
            *("loss", "optimizer", "augmentation", "schedule", "evaluation", "concepts"),
            *("learn_temperature", "temperature", "momentum"),
        }
        assert load(name, paper).num_epochs == load(name, strong).num_epochs


def test_the_small_models_schedule_is_the_papers_in_fewer_epochs():
    assert variants.small_schedule(20) == {
        "num_epochs": 20,
        "schedule.alignment_from_epoch": load("rsicd").schedule.alignment_from_epoch,
        "optimizer.decay_every_epochs": load("rsicd").optimizer.decay_every_epochs,
    }
    for name in PUBLISHED:
        config = load(name, "small")
        assert 0 < config.schedule.alignment_from_epoch < config.num_epochs
        sizes = {field: fields(name, "small")[field] for field in variants.SMALL}
        assert sizes == variants.SMALL


@pytest.mark.parametrize(
    ("name", "epochs", "decay"),
    [("rsicd", 20, 0.5), ("rsitmd", 30, 0.7), ("nwpu_captions", 30, 0.5)],
)
def test_published_schedules(name, epochs, decay):
    config = load(name)
    assert config.num_epochs == epochs
    assert config.optimizer.decay_factor == decay
    assert config.optimizer.decay_every_epochs == 10
    assert config.schedule.alignment_from_epoch == 11
    assert config.batch_size == 100
    assert config.data.validation_fraction == 0.2


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_clip_is_fine_tuned_with_published_numbers(name):
    found = fields(name, "clip_b32")
    expected = {
        "encoders.preset": "ViT-B-32-quickgelu",
        "encoders.hybrid": False,
        "finetuning.trains": "all",
        "optimizer.name": "adam",
        "optimizer.learning_rate": 5e-6,
        "optimizer.weight_decay": 0.5,
        "optimizer.epsilon": 1e-6,
        "optimizer.clip_norm": 50.0,
        "optimizer.schedule": "cosine",
        "optimizer.warmup_steps": 100,
        "learn_temperature": True,
        "loss.negatives": "batch",
        "loss.contrastive_weight": 1.0,
    }
    assert {field: found[field] for field in expected} == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_unknown_variant_is_refused_with_the_known_ones(name):
    with pytest.raises(
        ValueError,
        match=rf"^configs/{name}.py has the variants resnet18, resnet34, resnet50, resnet101, "
        r"release, strong, small, small_strong, clip_b32, not 'resnet19'$",
    ):
        load(name, "resnet19")
