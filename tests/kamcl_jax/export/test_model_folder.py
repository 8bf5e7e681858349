"""A model folder gives back the model bit for bit, or one sentence says what is wrong with it."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest

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
    model = kamcl_jax.load(str(written))
    expected = tiny_model.variables["params"]
    jax.tree.map(np.testing.assert_array_equal, model.variables["params"], expected)
    assert model.words == tiny_model.words
    assert model.step == tiny_model.step
    assert model.concepts.min_repeats == tiny_model.concepts.min_repeats
    assert (written / "README.md").read_text() == "# A model\n"
    model_folder.write(written, tiny_model, "# A model\n")
    assert {path.name for path in written.iterdir()} == set(model_folder.FILES)


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


def edit_training(**fields):
    return edit_json("config.json", lambda config: config["training"].update(fields))


def cut(name, length):
    def edit(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:length])

    return edit


def without_checksums(edit):
    """As exports of earlier versions are."""
    return lambda folder: (
        edit_json("config.json", lambda c: c.pop("sha256"))(folder),
        edit(folder),
    )


DAMAGES = {
    "config cut": (cut("config.json", 50), "config.json is no JSON object"),
    "of a later format": (
        edit_json("config.json", lambda config: config.update(format=2)),
        "config.json is of a model_type and format other than 'kamcl', 1",
    ),
    "no step": (edit_json("config.json", lambda config: config.pop("step")), "step"),
    "a size in words": (edit_training(image_size="large"), "config.json"),
    "another model": (
        edit_training(embedding_size=8),
        "do not fit the model that config.json describes: params.image.ConceptHead",
    ),
    "weights changed": (cut("model.safetensors", -1), "is not what was exported with config.json"),
    "weights cut": (without_checksums(cut("model.safetensors", 5000)), "is no whole safetensors"),
    "no vocabulary": (
        lambda folder: (folder / "vocabulary.json").unlink(),
        "cannot read .*vocabulary.json: No such file",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_sentence(damage, copied):
    edit, sentence = DAMAGES[damage]
    edit(copied)
    with pytest.raises(ExportError, match=sentence) as caught:
        kamcl_jax.load(copied)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named(tiny_model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"cannot write .*file/model.safetensors: File exists"):
        model_folder.write(tmp_path / "file", tiny_model, "")


def test_code_that_comes_with_a_model_is_not_run(copied, monkeypatch):
    (copied / "brought.py").write_text("raise SystemExit('it was run')\n")
    edit_training(**{"image_encoder.module": MODULE})(copied)
    monkeypatch.chdir(copied)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as in a Python that was started there
    with pytest.raises(ExportError, match=r"'brought:Name', which lies in .* is not run"):
        kamcl_jax.load(".")
