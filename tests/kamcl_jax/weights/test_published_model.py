"""Published models: the libraries' numbers, from each kind of file, and files that do not fit."""

import dataclasses
import json
import re
from functools import cache

import clip_oracles
import jax
import numpy as np
import pytest
import tiny_clip
from flax import traverse_util
from safetensors.numpy import save_file
from tiny_clip import TINY, variables

from kamcl_jax.config.build import UNOPTIMISED
from kamcl_jax.errors import ConfigError, PretrainedError
from kamcl_jax.models.clip import presets
from kamcl_jax.models.clip.towers import abstract_variables
from kamcl_jax.weights import hugging_face, open_clip, siglip
from kamcl_jax.weights.published_model import read_published
from kamcl_jax.weights.torch_layout import to_torch, torch_shapes

GOLDEN, SHAPES = (
    json.loads(file.read_text()) for file in (clip_oracles.GOLDEN, clip_oracles.SHAPES)
)

LIBRARIES = {
    "siglip": "transformers",
    "clip of transformers": "transformers",
    "siglip of open_clip": "timm",
}


@pytest.fixture(params=TINY)
def name(request, monkeypatch):
    """The name of a tiny preset, which is among the published ones."""
    monkeypatch.setitem(presets.PRESETS, request.param, TINY[request.param])
    return request.param


def relative(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


@cache
def run(name, dtype):
    """The outputs and the gradient of a tiny model, in float64 compiled quickly."""
    wide = dtype == np.float64
    with jax.enable_x64(wide):
        cast = jax.tree.map(lambda leaf: leaf.astype(dtype), variables(TINY[name]))
        options = ("plain", UNOPTIMISED) if wide else ()
        outputs, gradient = tiny_clip.run(TINY[name], cast, *options)
    layout = tiny_clip.layout_of(TINY[name])
    parameters = {tensor: layout[tensor] for tensor in GOLDEN[name]["gradient_sums"]}
    assert len(jax.tree.leaves(gradient)) == len({p.path for p in parameters.values()})
    return outputs, to_torch({"params": gradient}, parameters)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-5)])
def test_embeddings_losses_and_gradients_are_the_librarys(name, dtype, tolerance):
    expected = GOLDEN[name]
    outputs, gradient = run(name, dtype)
    for field, found in outputs._asdict().items():
        assert found.dtype == dtype
        assert relative(found, expected[field]) < tolerance, field
    largest = max(norm for norm, _ in expected["gradient_sums"].values())
    for tensor, found in clip_oracles.sums(gradient).items():
        norm, _ = both = expected["gradient_sums"][tensor]
        # In float32 what is 0 but for rounding, as the keys' biases are, is rounded otherwise.
        floor = 10 * norm + (1e-3 if dtype == np.float64 else 1) * largest
        np.testing.assert_allclose(found, both, rtol=0, atol=tolerance * floor, err_msg=tensor)


@pytest.mark.parametrize("name", clip_oracles.ORACLES)
def test_the_golden_numbers_are_what_the_libraries_say_today(name):
    pytest.importorskip(LIBRARIES.get(name, "open_clip"))
    oracle, expected = clip_oracles.ORACLES[name], GOLDEN[name]
    model = oracle.model()
    shapes = {tensor: list(x.shape) for tensor, x in model.state_dict().items()}
    assert shapes == SHAPES[name]
    outputs, gradient = clip_oracles.run(oracle.preset, model)
    for field, found in outputs._asdict().items():
        np.testing.assert_allclose(found, expected[field], rtol=1e-9)
    if name not in TINY:
        return
    _, ours = run(name, np.float64)
    assert ours.keys() == gradient.keys()
    largest = max(np.abs(leaf).max() for leaf in gradient.values())
    for tensor, leaf in gradient.items():
        atol = 1e-9 * max(np.abs(leaf).max(), 1e-6 * largest)
        np.testing.assert_allclose(ours[tensor], leaf, rtol=0, atol=atol, err_msg=tensor)


LAYOUTS = {
    **{name: (oracle.preset, oracle.layout) for name, oracle in clip_oracles.ORACLES.items()},
    clip_oracles.BIG_VISION: (TINY["siglip"], siglip.big_vision_layout(TINY["siglip"])),
}


@pytest.mark.parametrize("name", SHAPES)
def test_tensors_are_called_and_shaped_as_the_libraries_have_them(name):
    preset, layout = LAYOUTS[name]
    shapes = torch_shapes(layout, abstract_variables(preset))
    expected = {tensor.replace("/", "."): tuple(shape) for tensor, shape in SHAPES[name].items()}
    assert shapes == expected


@pytest.mark.parametrize("name", [name for name in GOLDEN if name not in TINY])
def test_other_libraries_tensors_are_put_where_they_compute_the_same(name):
    preset, layout = LAYOUTS[name]
    with jax.enable_x64(True):
        read = variables(preset, layout)
        cast = jax.tree.map(lambda leaf: leaf.astype(np.float64), read)
        found = tiny_clip.outputs(preset, cast, "plain")
    for field, expected in GOLDEN[name].items():
        assert relative(getattr(found, field), expected) < 1e-9, field


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
