"""An exported run is used as its model card says: with the program, and by JAX alone."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from stored_runs import run_config, save
from tiny_index import noise

import kamcl_jax
from input_pipeline.errors import DataError
from kamcl_jax.config import build
from kamcl_jax.errors import ConfigError, ExportError
from kamcl_jax.evaluate import evaluate, finished_run
from kamcl_jax.export import command, model_card, model_folder, stablehlo
from kamcl_jax.inference import embed
from kamcl_jax.search import update_index
from kamcl_jax.search.index import open_index

FILES = {
    *("README.md", "config.json", "model.safetensors", "vocabulary.json"),
    *("image_encoder.stablehlo", "text_encoder.stablehlo"),
    *("embeddings_test.npz", "embeddings_test.parquet"),
}
OF_OTHER_WEIGHTS = ("text_encoder.stablehlo", "embeddings_train.npz", "embeddings_test.parquet")
IMAGES = ["airport.jpg", "harbour.png"]
CAPTIONS = ["two planes are parked next to a terminal", "a river between fields"]

KEPT = """
import sys

more = encode_texts(np.pad(tokens[1:], ((0, 0), (0, 3))), named[1:])  # another batch and length
np.savez("found.npz", **{f"image_{k}": images[k] for k in images},
         **{f"text_{k}": texts[k] for k in texts}, longer=more["embeddings"])
ours = ("flax", "input_pipeline", "kamcl_jax", "optax", "orbax")
assert not [name for name in sys.modules if name.split(".")[0] in ours]
"""

LOAD = """
import sys
import kamcl_jax

assert not {"jax", "numpy"} & sys.modules.keys()
for folder in sys.argv[1:]:
    print(kamcl_jax.load(folder).encode_texts(["two planes near a terminal"]).shape)
    print(*{name.split(".")[0] for name in sys.modules})
import kamcl_jax.search.command
print(*{name.split(".")[0] for name in sys.modules})
"""
HEAVY = {"flask", "lancedb", "matplotlib", "nltk", "pandas", "tensorflow_datasets", "torch"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of KAMCL's own encoders."""
    folder = tmp_path_factory.mktemp("run")
    save(build.build(run_config(folder)), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The folder of the run's model, with images of the names that the card uses."""
    folder = tmp_path_factory.mktemp("exported")
    command.export(run, folder / "model", split="test")
    for number, name in enumerate(IMAGES):
        noise(number, 90, 70).save(folder / name)
    return folder / "model"


@pytest.fixture(scope="module")
def model(exported):
    return kamcl_jax.load(exported)


@pytest.fixture
def in_folder(exported, tmp_path, monkeypatch):
    """A copy of the folder, with images, as the working directory."""
    copied = shutil.copytree(exported, tmp_path / "model")
    for name in IMAGES:
        shutil.copy(exported.parent / name, copied)
    monkeypatch.chdir(copied)
    return copied


def snippets(folder):
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)


def test_the_folder_is_the_model_of_the_run_and_the_cards_lines_load_it(
    in_folder, exported, model, run
):
    assert {path.name for path in exported.iterdir()} == FILES
    expected = kamcl_jax.load(run)
    assert model.step == expected.step
    jax.tree.map(np.testing.assert_array_equal, model.variables, expected.variables)
    assert model.words == expected.words
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippets(in_folder)[0], {})
    cosines = model.similarity(model.encode_images(IMAGES), model.encode_texts(CAPTIONS[:1]))
    assert printed.getvalue().strip() == str(cosines)


def test_an_index_of_the_model_embeds_as_it_does(exported, model, tmp_path):
    update_index.index_images(model, exported.parent, tmp_path / "index")
    index = open_index(tmp_path / "index")
    assert index.files == IMAGES
    expected = model.encode_images([exported.parent / name for name in IMAGES])
    np.testing.assert_allclose(index.embeddings, expected, rtol=0, atol=1e-6)
    found = index.model.encode_texts(CAPTIONS[:1])
    np.testing.assert_array_equal(found, model.encode_texts(CAPTIONS[:1]))


def test_a_sentence_is_embedded_without_the_libraries_of_data_pictures_and_pages(exported, run):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, exported, run],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    shape, of_the_export, same_shape, of_the_run, of_a_search = done.stdout.splitlines()
    assert shape == same_shape == "(1, 16)"
    assert not HEAVY & set(f"{of_the_export} {of_the_run} {of_a_search}".split())
    assert "orbax" not in of_the_export.split()


def test_the_cards_lines_for_jax_alone_give_what_the_program_gives(in_folder, model):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment.pop("PYTHONPATH", None)
    code = snippets(in_folder)[1] + KEPT
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = np.load("found.npz")
    images = model.encode_images_with_concepts(IMAGES)
    texts = model.encode_texts(CAPTIONS)
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(found["image_embeddings"], images.embeddings, **close)
    np.testing.assert_allclose(found["image_concepts"], images.concepts, **close)
    np.testing.assert_allclose(found["text_embeddings"], texts, **close)
    np.testing.assert_allclose(found["longer"], texts[1:], **close)
    assert found["text_concepts"].shape == (2, len(model.concepts))


def test_the_card_has_the_reports_scores_and_the_sizes_of_the_data(stored_runs, tmp_path):
    command.export(stored_runs.one, tmp_path, split="test")
    card = (tmp_path / "README.md").read_text()
    _, header, text = card.split("---\n", 2)
    fields = yaml.safe_load(header)
    test = finished_run.read(stored_runs.one).results["test"]
    listed = {
        entry["name"]: entry["value"] for entry in fields["model-index"][0]["results"][0]["metrics"]
    }
    assert listed["mean of the six recalls (%)"] == round(test["mR"], 2)
    assert listed["text to image recall@5 (%)"] == round(test["t2i_r5"], 2)
    assert fields["datasets"] == ["synthetic"]
    assert f"| {test['mR']:.2f} |" in text
    assert re.search(r"\| train +\| +24 \| +120 \|", text)
    assert "On photographs it is of no use" in text
    assert "{" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL)  # no field left open


def test_the_card_says_how_well_concepts_are_known_if_the_report_does(stored_runs, model):
    results = finished_run.read(stored_runs.one).results
    test = results["test"]
    row = rf"\| test +\| captions +\| +{test['concept_map_text']:.2f} \|"
    assert re.search(row, model_card.write(model, results))
    # A report of an older version.
    older = {name: value for name, value in test.items() if "concept" not in name}
    del results["concepts"]
    card = model_card.write(model, {**results, "test": older})
    assert f"| {test['mR']:.2f} |" in card
    assert "concepts: the average precision" not in card


def test_arrays_and_table_of_the_split_are_those_of_the_model(exported, model, run):
    arrays = np.load(exported / "embeddings_test.npz")
    test = finished_run.open_data(finished_run.read(run)).test
    assert arrays["captions"].tolist() == list(test.captions)
    assert arrays["file_names"].tolist() == list(test.file_names)
    assert arrays["concept_words"].tolist() == list(model.concepts.words)
    assert int(arrays["step"]) == model.step
    np.testing.assert_array_equal(arrays["image_of_caption"], test.image_of_caption)
    encoded = model.encode_images_with_concepts(np.asarray(test.images))
    np.testing.assert_allclose(arrays["image_embeddings"], encoded.embeddings, atol=1e-6)
    np.testing.assert_allclose(arrays["image_concepts"], encoded.concepts, atol=1e-6)
    texts = model.encode_texts(arrays["captions"].tolist())
    np.testing.assert_allclose(arrays["caption_embeddings"], texts, atol=1e-5)

    table = pq.read_table(exported / "embeddings_test.parquet")
    columns, names = table.to_pydict(), arrays["file_names"]
    assert columns["kind"] == ["image"] * 6 + ["caption"] * 30
    described = names[arrays["image_of_caption"]]
    assert columns["file_name"] == [*names.tolist(), *described.tolist()]
    assert columns["caption"] == [None] * 6 + arrays["captions"].tolist()
    for column, of in (("embedding", "embeddings"), ("concepts", "concepts")):
        expected = np.concatenate([arrays[f"image_{of}"], arrays[f"caption_{of}"]])
        np.testing.assert_array_equal(np.array(columns[column], np.float32), expected)
    assert table.schema.metadata[b"step"] == b"30"
    assert json.loads(table.schema.metadata[b"concept_words"]) == list(model.concepts.words)


def test_what_is_not_known_or_cannot_be_is_told(stored_runs, tmp_path, capsys, monkeypatch):
    def encode(variables, images):
        rows = [images[0]] * (len(images) // 2)  # of a size that nobody knows
        return embed.Encoded(jnp.stack(rows), jnp.stack(rows))

    monkeypatch.setattr(embed, "encoder_functions", lambda *_, **__: (encode, encode))
    workdir = shutil.copytree(stored_runs.one, tmp_path / "run")
    shutil.rmtree(workdir / "report")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "kamcl"}')
    for name in OF_OTHER_WEIGHTS:
        (folder / name).write_text("of other weights")
    command.export(workdir, folder)
    told = capsys.readouterr().err
    assert "has no report, and the model card no scores" in told
    assert "no StableHLO is written: the image encoder cannot be exported for inputs of" in told
    card = (folder / "README.md").read_text()
    assert "There is no report of these weights (step 30)" in card
    assert "was not looked up for this card" in card
    assert "model-index" not in card
    assert "stablehlo" not in card
    assert {path.name for path in folder.iterdir()} == set(model_folder.FILES)


def refused(sentence, error=ExportError):
    return pytest.raises(error, match=sentence)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"README.md": "mine"}, "README.md"),
        ({"config.json": "{}"}, "config.json"),  # as a training writes one
        ({"config.json": '{"model_type": "bert"}', "model.safetensors": ""}, "config.json"),
        ({"model.safetensors": "of another program"}, "model.safetensors"),
    ],
)
def test_what_is_not_an_exported_model_is_never_replaced(files, named, stored_runs, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with refused(f"{named} is not of a finished export"):
        command.export(stored_runs.one, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_what_cannot_be_read_or_written_is_told_and_leaves_nothing(stored_runs, exported, tmp_path):
    (tmp_path / "file").write_text("mine")
    config = finished_run.read(stored_runs.one).config
    config.data.prepared_dir = str(tmp_path / "file" / "data")
    of_a_run = "model is an exported model, .* this needs the folder of the run"
    export = partial(command.export, stored_runs.one)
    for call, sentence, error in (
        (partial(export, tmp_path / "file"), "file cannot be a folder: it is a file", ConfigError),
        (partial(export, tmp_path / "file/a"), "a folder: Not a directory", ConfigError),
        (partial(export, tmp_path / "a", split="test", config=config), "file/data", DataError),
        (partial(command.export, exported, tmp_path / "a"), of_a_run, ConfigError),
        (partial(evaluate.evaluate, None, exported), of_a_run, ConfigError),
    ):
        with refused(sentence, error):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_export_that_is_cut_short_leaves_nothing_of_other_weights(
    exported, stored_runs, tmp_path, monkeypatch
):
    copied = shutil.copytree(exported, tmp_path / "model")
    write_bytes = model_folder.write_bytes

    def full(path, content):
        if path.suffix == ".stablehlo":
            raise ExportError("No space left on device")
        write_bytes(path, content)

    for name in ("image_encoder", "text_encoder"):
        monkeypatch.setattr(stablehlo, name, lambda _: bytearray(b"new"))
    monkeypatch.setattr(model_folder, "write_bytes", full)
    with refused("No space left"):
        command.export(stored_runs.two, copied)
    assert {path.name for path in copied.iterdir()} == set(model_folder.FILES)
    assert kamcl_jax.load(copied).config.seed == 1
