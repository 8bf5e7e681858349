"""What open_clip cannot compute is told; what it can is compared in the tests of fine-tuning."""

from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import tiny_config

from kamcl_jax.errors import ExportError
from kamcl_jax.export import open_clip_file


def model_of(preset, gate):
    config = tiny_config()
    config.encoders.preset = preset
    heads = {"concept_head": {"gate": np.float32(gate)}}
    return SimpleNamespace(config=config, variables={"params": {"image": heads, "text": {}}})


@pytest.mark.parametrize(
    ("preset", "sentence"),
    [
        ("", "the model has no encoders of a published CLIP or SigLIP"),
        ("ViT-B-32", "concepts are added to the embeddings"),
    ],
)
def test_a_model_that_open_clip_cannot_compute_is_refused_in_a_sentence_of_its_own(
    preset, sentence
):
    model = model_of(preset, gate=0.1)
    assert not open_clip_file.fits(model)
    with pytest.raises(ExportError, match=sentence):
        open_clip_file.contents(model)


def test_a_head_that_adds_nothing_leaves_a_model_that_open_clip_computes():
    assert open_clip_file.fits(model_of("ViT-B-32", gate=0))
