"""The variants of the ablation, and the rows of its table."""

import numpy as np
import pytest

from configs import synthetic
from examples import ablation
from kamcl_jax.config.checks import check_config
from kamcl_jax.config.fields import flatten
from kamcl_jax.ranking.ranks import rank_both_ways


@pytest.mark.parametrize("name", ablation.VARIANTS)
def test_every_variant_is_a_config_that_can_be(name):
    config = synthetic.get_config()
    config.update_from_flattened_dict(ablation.VARIANTS[name])
    check_config(config)


def test_what_is_changed_in_the_strong_recipe_is_another_training():
    trainings = []
    for changes in ablation.VARIANTS.values():
        config = synthetic.get_config()
        config.update_from_flattened_dict(changes)
        trainings.append(flatten(config))
    assert not [one for place, one in enumerate(trainings) if one in trainings[:place]]


def ranked(seed, quality):
    """Three captions for each of 20 images; the larger the quality, the better they are found."""
    images = np.repeat(np.arange(20), 3)
    noise = np.random.default_rng(seed).normal(size=(20, 60))
    right = np.arange(20)[:, None] == images
    return rank_both_ways(noise + quality * right, images), images


def test_a_row_says_what_the_seeds_scored_and_what_was_gained():
    first, better = ([ranked(seed, quality) for seed in (0, 1, 2)] for quality in (0.5, 3))
    name, mean, *_, seeds, gained = ablation.row("KAMCL", first, first)
    assert (name, gained) == ("KAMCL", "")
    values = [float(value) for value in seeds.split(", ")]
    assert mean == f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    *_, gained = ablation.row("other", better, first)
    difference, low, _, high = gained.replace("(", "").replace(")", "").split()
    assert 0 < float(low) < float(difference) < float(high)
