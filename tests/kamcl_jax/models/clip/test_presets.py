"""The published models have the sizes that their papers and libraries say."""

import dataclasses
import math

import jax
import pytest

from kamcl_jax.errors import ConfigError
from kamcl_jax.models.clip.presets import PRESETS, described, preset
from kamcl_jax.models.clip.towers import abstract_variables, dual_encoder

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


CLIP_PIXELS = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
    "shortest",
)
SIGLIP_PIXELS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash")

PUBLISHED = {
    "RN50": (32, 8, 77, 224, *CLIP_PIXELS),
    "ViT-B-32": (12, 8, 77, 224, *CLIP_PIXELS),
    "ViT-B-16": (12, 8, 77, 224, *CLIP_PIXELS),
    "ViT-L-14": (16, 12, 77, 224, *CLIP_PIXELS),
    "ViT-L-14-336": (16, 12, 77, 336, *CLIP_PIXELS),
    "ViT-H-14": (16, 16, 77, 224, *CLIP_PIXELS),
    "ViT-B-16-SigLIP": (12, 12, 64, 224, *SIGLIP_PIXELS),
    "ViT-B-16-SigLIP-256": (12, 12, 64, 256, *SIGLIP_PIXELS),
    "ViT-SO400M-14-SigLIP": (16, 16, 16, 224, *SIGLIP_PIXELS),
    "ViT-SO400M-14-SigLIP-384": (16, 16, 64, 384, *SIGLIP_PIXELS),
}
"""Name -> the heads of both towers, the context, the image size, mean, std and resizing.

They are typed from the configurations that OpenAI, LAION and Google publish beside the weights.
"""

EPSILONS = {"clip": 1e-5, "siglip": 1e-6}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_preset_has_as_many_parameters_as_the_published_model(name):
    leaves = jax.tree.leaves(abstract_variables(preset(name))["params"])
    assert sum(math.prod(leaf.shape) for leaf in leaves) == PARAMETERS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_what_no_count_of_parameters_tells(name):
    model = preset(name)
    assert (
        model.image.heads,
        model.text.heads,
        model.text.context,
        model.image_size,
        model.mean,
        model.std,
        model.resize,
    ) == PUBLISHED[name]
    assert model.family == ("siglip" if "SigLIP" in name else "clip")
    encoders = dual_encoder(model)
    transformers = [encoders.text.tower.transformer]
    if name != "RN50":
        transformers.append(encoders.image.tower.transformer)
    for transformer in transformers:
        assert transformer.epsilon == EPSILONS[model.family]


def test_each_activation_is_a_preset_of_its_own():
    by_activation = {name: model.activation for name, model in PRESETS.items()}
    assert by_activation["ViT-B-32"] == "gelu"
    assert by_activation["ViT-B-32-quickgelu"] == "quick_gelu"
    assert by_activation["ViT-B-16-SigLIP"] == "gelu_tanh"
    assert by_activation["ViT-B-16-SigLIP-gelu"] == "gelu"
    for name, model in PRESETS.items():
        original = PRESETS[name.removesuffix("-quickgelu").removesuffix("-gelu")]
        assert model == dataclasses.replace(original, activation=model.activation)
    assert len({repr(model) for model in PRESETS.values()}) == len(PRESETS) == 20


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="no preset 'ViT-B-33'; there are RN50, ViT-B-32, "):
        preset("ViT-B-33")


def test_the_activation_of_each_is_told():
    assert described("ViT-B-32-quickgelu") == "ViT-B-32-quickgelu, with QuickGELU"
    assert described("ViT-B-32") == "ViT-B-32, with the exact GELU"
    assert all(described(name).startswith(f"{name}, with ") for name in PRESETS)
