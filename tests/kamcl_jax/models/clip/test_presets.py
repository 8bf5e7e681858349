"""The published models have the sizes that their papers and libraries say."""

import math

import jax
import pytest

from kamcl_jax.errors import ConfigError
from kamcl_jax.models.clip.presets import PRESETS, preset
from kamcl_jax.models.clip.towers import abstract_variables

PARAMETERS = {
    "RN50": 102_007_137,
    "ViT-B-32": 151_277_313,
    "ViT-B-16": 149_620_737,
    "ViT-L-14": 427_616_513,
    "ViT-L-14-336": 427_944_193,
    "ViT-H-14": 986_109_441,
    "ViT-B-16-SigLIP": 203_155_970,
    "ViT-B-16-SigLIP-256": 203_202_050,
    "ViT-SO400M-14-SigLIP": 877_360_306,
    "ViT-SO400M-14-SigLIP-384": 877_960_498,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_preset_has_as_many_parameters_as_the_published_model(name):
    leaves = jax.tree.leaves(abstract_variables(preset(name))["params"])
    assert sum(math.prod(leaf.shape) for leaf in leaves) == PARAMETERS[name]


def test_each_activation_is_a_preset_of_its_own():
    by_activation = {name: model.activation for name, model in PRESETS.items()}
    assert by_activation["ViT-B-32"] == "gelu"
    assert by_activation["ViT-B-32-quickgelu"] == "quick_gelu"
    assert by_activation["ViT-B-16-SigLIP"] == "gelu_tanh"
    assert by_activation["ViT-B-16-SigLIP-gelu"] == "gelu"
    assert len({repr(model) for model in PRESETS.values()}) == len(PRESETS) == 20


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="no preset 'ViT-B-33'; there are RN50, ViT-B-32, "):
        preset("ViT-B-33")
