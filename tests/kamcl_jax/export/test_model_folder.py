"""A model folder gives back the model bit for bit, or one sentence says what is wrong with it."""

import shutil
import sys

import jax
import numpy as np
import pytest

import kamcl_jax
from kamcl_jax.errors import ExportError
from kamcl_jax.export import model_folder


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


def replace(*change):
    return lambda content: content.replace(*change)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"config.json": lambda content: content[:50]}, "config.json is no JSON object"),
        ({"config.json": replace(b'"format": 1', b'"format": 2')}, "format other than 'kamcl', 1"),
        ({"config.json": replace(b'"step"', b'"no step"')}, "lacks an entry .* 'step'"),
        ({"config.json": replace(b'"image_size": 64', b'"image_size": "large"')}, "config.json"),
        (
            {"config.json": replace(b'"embedding_size": 16', b'"embedding_size": 8')},
            "do not fit the model that config.json describes: params.image.ConceptHead",
        ),
        (
            {"model.safetensors": lambda content: content[:-1]},
            "is not what was exported with config.json",
        ),
        (
            {  # as in an export of an earlier version
                "config.json": replace(b'"sha256"', b'"no sums"'),
                "model.safetensors": lambda content: content[:5000],
            },
            "is no whole safetensors",
        ),
        ({"vocabulary.json": lambda _: None}, "cannot read .*vocabulary.json: No such file"),
    ],
)
def test_damage_is_one_sentence(changes, sentence, copied):
    for name, change in changes.items():
        content = change((copied / name).read_bytes())
        (copied / name).unlink()
        if content is not None:
            (copied / name).write_bytes(content)
    with pytest.raises(ExportError, match=sentence) as caught:
        kamcl_jax.load(copied)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named(tiny_model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"cannot write .*file/model.safetensors: File exists"):
        model_folder.write(tmp_path / "file", tiny_model, "")


def test_code_that_comes_with_a_model_is_not_run(copied, monkeypatch):
    (copied / "brought.py").write_text("raise SystemExit('it was run')\n")
    config = copied / "config.json"
    config.write_text(config.read_text().replace("plain_encoders:Colours", "brought:Name"))
    monkeypatch.chdir(copied)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as in a Python that was started there
    with pytest.raises(ExportError, match=r"'brought:Name', which lies in .* is not run"):
        kamcl_jax.load(".")
