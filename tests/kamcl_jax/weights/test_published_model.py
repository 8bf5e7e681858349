"""Published models: the libraries' numbers, from each kind of file, and files that do not fit."""

import dataclasses
import json
import re

import clip_oracles
import jax
import numpy as np
import pytest
import tiny_clip
from flax import traverse_util
from safetensors.numpy import save_file
from tiny_clip import TINY, variables

from kamcl_jax.errors import ConfigError, PretrainedError
from kamcl_jax.models.clip import presets
from kamcl_jax.weights import hugging_face, open_clip, siglip
from kamcl_jax.weights.published_model import read_published
from kamcl_jax.weights.torch_layout import to_torch

GOLDEN = json.loads(clip_oracles.GOLDEN.read_text())


@pytest.fixture(params=TINY)
def name(request, monkeypatch):
    """The name of a tiny preset, which is among the published ones."""
    monkeypatch.setitem(presets.PRESETS, request.param, TINY[request.param])
    return request.param


def relative(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    ("dtype", "implementation", "tolerance"),
    [(np.float64, "plain", 1e-9), (np.float32, None, 1e-5)],
)
def test_embeddings_losses_and_gradients_are_the_librarys(name, dtype, implementation, tolerance):
    preset, expected = TINY[name], GOLDEN[name]
    with jax.enable_x64(dtype == np.float64):
        cast = jax.tree.map(lambda leaf: leaf.astype(dtype), variables(preset))
        images, texts, loss, gradient = tiny_clip.run(preset, cast, implementation)
    assert images.dtype == texts.dtype == dtype
    assert relative(images, expected["images"]) < tolerance
    assert relative(texts, expected["texts"]) < tolerance
    np.testing.assert_allclose(loss, expected["loss"], rtol=tolerance)
    layout = {
        n: p for n, p in tiny_clip.layout_of(preset).items() if n in expected["gradient_norms"]
    }
    norms = {n: np.linalg.norm(x) for n, x in to_torch({"params": gradient}, layout).items()}
    assert norms.keys() == expected["gradient_norms"].keys()
    largest = max(expected["gradient_norms"].values())
    for tensor, norm in expected["gradient_norms"].items():
        np.testing.assert_allclose(
            norms[tensor], norm, rtol=10 * tolerance, atol=tolerance * largest, err_msg=tensor
        )


@pytest.mark.parametrize("name", TINY)
def test_the_golden_numbers_are_what_the_libraries_say_today(name):
    pytest.importorskip("transformers" if TINY[name].family == "siglip" else "open_clip")
    images, texts, loss, norms = clip_oracles.oracle(name)
    expected = GOLDEN[name]
    np.testing.assert_allclose(images, expected["images"], rtol=1e-9)
    np.testing.assert_allclose(texts, expected["texts"], rtol=1e-9)
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-9)
    assert norms == pytest.approx(expected["gradient_norms"], rel=1e-6, abs=1e-12)


def hugging_face_folder(preset, folder, weights):
    names = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_tanh": "gelu_pytorch_tanh"}
    tower = {"hidden_act": names[preset.activation]}
    (folder / "config.json").write_text(json.dumps({"vision_config": tower, "text_config": tower}))
    save_file(
        to_torch(weights, hugging_face.hugging_face_layout(preset)), folder / "model.safetensors"
    )
    return folder


def big_vision_file(preset, folder, weights, *, stacked):
    arrays = to_torch(weights, siglip.big_vision_layout(preset))
    if stacked:
        for name in [name for name in arrays if "encoderblock_0" in name]:
            layers = [
                arrays.pop(name.replace("block_0", f"block_{i}")) for i in range(preset.text.layers)
            ]
            arrays[name.replace("block_0", "block")] = np.stack(layers)
    named = {f"params/{name.replace('.', '/')}": array for name, array in arrays.items()}
    np.savez(folder / "weights.npz", **named)
    return folder / "weights.npz"


def assert_same(found, expected):
    found, expected = (traverse_util.flatten_dict(tree) for tree in (found, expected))
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg="/".join(path))


def test_every_kind_of_file_holds_the_same_model(name, tmp_path):
    preset = TINY[name]
    weights = variables(preset)
    files = [tmp_path / "bare.safetensors"]
    save_file(to_torch(weights, open_clip.open_clip_layout(preset)), files[0])
    if "resnet" not in name:
        files.append(hugging_face_folder(preset, tmp_path, weights))
    for file in files:
        assert_same(read_published(file, name), weights)
    if preset.family == "siglip":
        for stacked in (False, True):
            file = big_vision_file(preset, tmp_path, weights, stacked=stacked)
            assert_same(read_published(file, name), weights)


def test_pytorchs_files_are_read_bare_or_under_a_name(name, tmp_path):
    torch = pytest.importorskip("torch")
    weights = variables(TINY[name])
    state = to_torch(weights, open_clip.open_clip_layout(TINY[name]))
    bare = {n: torch.tensor(x) for n, x in state.items()}
    parallel = {f"module.{n}": x for n, x in bare.items()}
    besides = {**bare, "input_resolution": torch.tensor(20), "attn_mask": torch.zeros(2, 2)}
    for stored in (bare, {"epoch": 3, "state_dict": parallel}, besides):
        torch.save(stored, tmp_path / "model.pt")
        assert_same(read_published(tmp_path / "model.pt", name), weights)


def test_half_precision_is_widened(name, tmp_path):
    state = to_torch(variables(TINY[name]), open_clip.open_clip_layout(TINY[name]))
    half = {n: x.astype(np.float16) if x.dtype == np.float32 else x for n, x in state.items()}
    save_file(half, tmp_path / "half.safetensors")
    found = read_published(tmp_path / "half.safetensors", name)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))
    expected = jax.tree.map(lambda leaf: leaf.astype(np.float16), variables(TINY[name]))
    assert_same(found, expected)


def refused(path, name, sentence, error=PretrainedError):
    with pytest.raises(error, match=re.escape(sentence)):
        read_published(path, name)


@pytest.fixture
def published(monkeypatch):
    for name, preset in TINY.items():
        monkeypatch.setitem(presets.PRESETS, name, preset)


def test_what_does_not_fit_is_refused(published, tmp_path):
    refused(tmp_path, "ViT-B-33", "there is no preset 'ViT-B-33'; there are RN50,", ConfigError)
    refused(tmp_path, "clip", f"{tmp_path} has no config.json")
    in_parts = tmp_path / "in_parts"
    in_parts.mkdir()
    (in_parts / "config.json").write_text("{}")
    refused(in_parts, "clip", "all weights in one file, model.safetensors")
    folder = hugging_face_folder(TINY["clip"], tmp_path, variables(TINY["clip"]))
    refused(
        folder,
        "clip-quickgelu",
        "says that vision_config has the activation gelu, and the preset clip-quickgelu has "
        "quick_gelu; the preset is clip",
    )
    file = big_vision_file(TINY["siglip"], tmp_path, variables(TINY["siglip"]), stacked=True)
    refused(file, "clip", "big_vision's files are for presets of SigLIP alone")
    refused(file, "ViT-B-16-SigLIP", "lacks the tensor img.")
    file.write_bytes(file.read_bytes()[:1000])
    refused(file, "siglip", "is no whole file of NumPy arrays")
    with pytest.raises(PretrainedError, match="no CLIP with a ResNet"):
        hugging_face.hugging_face_layout(TINY["clip-resnet"])


def test_a_file_of_another_preset_is_refused(published, monkeypatch, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(to_torch(variables(TINY["clip"]), open_clip.open_clip_layout(TINY["clip"])), file)
    larger = dataclasses.replace(TINY["clip"], image_size=40)
    monkeypatch.setitem(presets.PRESETS, "clip-large", larger)
    refused(
        file,
        "clip-large",
        f"the tensor visual.positional_embedding of {file} has the shape [5, 16]; the model "
        "needs [26, 16]",
    )
    refused(file, "clip-resnet", "lacks the tensor visual.")
    refused(file, "siglip", "lacks the tensor")
