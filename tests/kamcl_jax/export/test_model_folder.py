"""A model folder gives back the model bit for bit, or one sentence says what is wrong with it."""

import dataclasses
import json
import shutil
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import kamcl_jax
from kamcl_jax.errors import ExportError
from kamcl_jax.export import model_folder

MODULE = "brought:Name"


@pytest.fixture(scope="module")
def written(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    model_folder.write(folder, tiny_model, "# A model\n")
    return folder


@pytest.fixture
def copied(written, tmp_path):
    """A folder to damage."""
    return shutil.copytree(written, tmp_path / "model")


def test_there_and_back_is_the_same_bit_for_bit(tiny_model, written):
    model = kamcl_jax.load(written)
    jax.tree.map(np.testing.assert_array_equal, model.variables, tiny_model.variables)
    assert model.words == tiny_model.words
    assert model.step == tiny_model.step
    assert model.concepts.min_repeats == tiny_model.concepts.min_repeats
    assert (written / "README.md").read_text() == "# A model\n"


def test_what_is_written_again_replaces_it_and_leaves_nothing_else(tiny_model, copied):
    before = {path.name for path in copied.iterdir()}
    model_folder.write(copied, tiny_model, "# Another card\n")
    assert {path.name for path in copied.iterdir()} == before
    assert (copied / "README.md").read_text() == "# Another card\n"


def test_paths_of_the_machine_that_trained_are_not_published(tiny_model):
    config = tiny_model.config.copy_and_resolve_references()
    config.data.dir = "/home/me/secret"
    config.data.options.captions = "/home/me/captions.csv"
    config.image_encoder.pretrained = "/home/me/resnet18.pth"
    fields = model_folder.published_fields(config)
    assert not [value for value in fields.values() if "/home/me" in str(value)]
    assert fields["image_encoder.pretrained"] == "resnet18.pth"
    assert fields["image_size"] == config.image_size


def edit_json(name, change):
    def edit(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return edit


without_checksums = edit_json("config.json", lambda config: config.pop("sha256"))


def edit_tensors(change):
    def edit(folder):
        path = folder / model_folder.WEIGHTS
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return edit


def cut(name, length):
    def edit(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:length])

    return edit


def retyped(tensors):
    tensors[BIAS] = tensors[BIAS].astype(np.float64)


BIAS = "params.image.aggregator.low_linear.bias"
DAMAGES = {
    "config cut": (cut("config.json", 50), "config.json is no JSON"),
    "config empty": (cut("config.json", 0), "config.json is no JSON"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "is no JSON object"),
    "of another program": (
        edit_json("config.json", lambda config: config.update(model_type="bert")),
        "config.json is of a model_type and format other than 'kamcl', 1",
    ),
    "of a later format": (
        edit_json("config.json", lambda config: config.update(format=2)),
        "config.json is of a model_type and format other than 'kamcl', 1",
    ),
    "checksums that are none": (
        edit_json("config.json", lambda config: config.update(sha256="abc")),
        "the entry sha256 of .*config.json is no JSON object",
    ),
    "no step": (edit_json("config.json", lambda config: config.pop("step")), "step"),
    "no training": (edit_json("config.json", lambda config: config.pop("training")), "training"),
    "a size in words": (
        edit_json("config.json", lambda config: config["training"].update(image_size="large")),
        "config.json",
    ),
    "a field of a field": (
        edit_json("config.json", lambda config: config["training"].update({"seed.of": 1})),
        "config.json",
    ),
    "vocabulary cut": (cut("vocabulary.json", 9), "vocabulary.json is no JSON"),
    "words that are none": (
        edit_json("vocabulary.json", lambda listed: listed.update(words=[1, 2])),
        "vocabulary.json",
    ),
    "a word twice": (
        edit_json("vocabulary.json", lambda listed: listed["words"].__setitem__(0, "plane")),
        "vocabulary.json",
    ),
    "no unknown word": (
        edit_json("vocabulary.json", lambda listed: listed["words"].__setitem__(-1, "ship")),
        "vocabulary.json",
    ),
    "a word less": (
        edit_json("vocabulary.json", lambda listed: listed["words"].pop(0)),
        r"embedding of .*model.safetensors is float32\[20, 6\], not float32\[19, 6\]",
    ),
    "more concepts than columns": (
        edit_json("vocabulary.json", lambda listed: listed["concepts"].append("one more")),
        "vocabulary.json",
    ),
    "weights cut": (cut("model.safetensors", 5000), "model.safetensors is no whole"),
    "weights empty": (cut("model.safetensors", 0), "model.safetensors is no whole"),
    "no bias": (edit_tensors(lambda tensors: tensors.pop(BIAS)), "lacks the tensor"),
    "one tensor more": (
        edit_tensors(lambda tensors: tensors.update(more=np.zeros(3))),
        "has, unexpectedly, the tensor more",
    ),
    "another type": (edit_tensors(retyped), r"is float64\[16\], not float32\[16\]"),
    "no vocabulary": (
        lambda folder: (folder / "vocabulary.json").unlink(),
        "cannot read .*vocabulary.json: No such file",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_sentence(damage, copied):
    edit, sentence = DAMAGES[damage]
    without_checksums(copied)
    edit(copied)
    with pytest.raises(ExportError, match=sentence) as caught:
        kamcl_jax.load(copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json"])
def test_a_changed_byte_is_noticed(name, copied):
    content = bytearray((copied / name).read_bytes())
    content[-9] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(ExportError, match=f"{name} is not what was exported with config.json"):
        kamcl_jax.load(copied)


def test_weights_of_another_export_are_noticed(tiny_model, copied, tmp_path):
    variables = jax.tree.map(lambda leaf: leaf + 1, tiny_model.variables)
    other = dataclasses.replace(tiny_model, variables=variables)
    model_folder.write(tmp_path / "other", other, "")
    shutil.copy(tmp_path / "other" / model_folder.WEIGHTS, copied)
    with pytest.raises(ExportError, match="it is damaged, or of another export"):
        kamcl_jax.load(copied)


def test_a_folder_that_cannot_be_written_is_named(tiny_model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"cannot write .*file/model.safetensors: File exists"):
        model_folder.write(tmp_path / "file", tiny_model, "")


def test_code_that_comes_with_a_model_is_not_run(copied, monkeypatch):
    (copied / "brought.py").write_text("raise SystemExit('it was run')\n")
    name_it = edit_json(
        "config.json", lambda config: config["training"].update({"image_encoder.module": MODULE})
    )
    name_it(copied)
    monkeypatch.chdir(copied)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as in a Python that was started there
    with pytest.raises(ExportError, match=r"'brought:Name', which lies in .* is not run"):
        kamcl_jax.load(".")
