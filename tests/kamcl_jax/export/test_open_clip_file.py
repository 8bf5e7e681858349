"""open_clip takes the file and computes the same; what it cannot compute is told."""

from types import SimpleNamespace

import clip_oracles
import numpy as np
import pytest
import tiny_clip
from safetensors.numpy import load
from tiny_model import tiny_config

from kamcl_jax.errors import ExportError
from kamcl_jax.export import open_clip_file
from kamcl_jax.models.clip import presets


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


OF_OPEN_CLIP = ["clip", "clip-quickgelu", "clip-resnet", "siglip of open_clip"]


@pytest.mark.parametrize("name", OF_OPEN_CLIP)
def test_open_clip_takes_every_tensor_and_says_the_same(name, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("timm" if "siglip" in name else "open_clip")
    oracle = clip_oracles.ORACLES[name]
    monkeypatch.setitem(presets.PRESETS, "tiny", oracle.preset)
    config = tiny_config()
    config.encoders.preset = "tiny"
    variables = tiny_clip.variables(oracle.preset, oracle.layout)
    contents = open_clip_file.contents(SimpleNamespace(config=config, variables=variables))
    model = oracle.make(oracle.preset)
    state = {tensor: torch.from_numpy(array) for tensor, array in load(contents).items()}
    model.load_state_dict(state, strict=True)
    outputs, _ = clip_oracles.run(oracle.preset, clip_oracles.double(model))
    expected, _ = clip_oracles.run(oracle.preset, oracle.model())
    for field, found in outputs._asdict().items():
        np.testing.assert_allclose(found, getattr(expected, field), rtol=1e-9)
