"""A published model is the same object as a trained one: it embeds, indexes, exports and scores."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_index import noise
from tiny_model import tiny_config

import kamcl_jax
from input_pipeline.errors import DataError
from input_pipeline.images.fitting import Fitting, fit
from kamcl_jax.config import build, encoders
from kamcl_jax.errors import ConfigError, ExportError, PretrainedError
from kamcl_jax.evaluate import evaluate
from kamcl_jax.export import command, model_folder
from kamcl_jax.inference import identity
from kamcl_jax.models.clip.presets import PRESETS
from kamcl_jax.models.clip.towers import dual_encoder
from kamcl_jax.models.layers import l2_normalise
from kamcl_jax.ranking import metrics
from kamcl_jax.ranking.scores import Embeddings
from kamcl_jax.search import searching, update_index
from kamcl_jax.search.index import open_index
from kamcl_jax.weights.published_model import read_published

SENTENCES = ["Two boats near a bridge .", "many green trees &amp; a road", "a " * 50]


@pytest.fixture(scope="module")
def model(tiny_published):
    return kamcl_jax.load(tiny_published.path, preset=tiny_published.preset)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "model"
    command.export_published(model, out)
    return out


def test_it_embeds_as_its_parts_do_one_by_one(model, tiny_published):
    preset = PRESETS[tiny_published.preset]
    variables = read_published(tiny_published.path, tiny_published.preset)
    apply = jax.jit(dual_encoder(preset).apply, static_argnames="method")
    images = [noise(number, height, width) for number, height, width in [(0, 40, 50), (1, 90, 30)]]
    pixels = np.stack([fit(image, 20, Fitting("shortest", "bicubic")) for image in images])
    normal = (pixels / np.float32(255) - np.float32(preset.mean)) / np.float32(preset.std)
    expected, _ = apply(variables, normal, method="encode_images")
    np.testing.assert_allclose(model.encode_images(images), l2_normalise(expected), atol=1e-6)

    tokens, lengths = model.tokenizer.encode(SENTENCES, multiple=24)
    nothing = np.zeros((3, 0), np.float32)
    expected, _ = apply(variables, tokens, lengths, nothing, method="encode_texts")
    np.testing.assert_allclose(model.encode_texts(SENTENCES), l2_normalise(expected), atol=1e-6)
    assert model.encode_images_with_concepts(images).concepts.shape == (2, 0)


def test_it_knows_every_word_and_says_what_it_does_not_read(model):
    assert list(map(model.is_cut, SENTENCES)) == [False, False, True]
    assert model.unknown_words("qwertz") == []
    (note,) = searching.query_notes(model, SENTENCES[2])
    assert note == "The model reads only the beginning of so long a query."
    assert searching.query_notes(model, "qwertz") == []


def test_an_export_is_the_same_model_and_needs_no_other_file(model, exported, tmp_path):
    moved = shutil.copytree(exported, tmp_path / "moved")
    again = kamcl_jax.load(moved)
    assert identity.identity(again) == identity.identity(kamcl_jax.load(exported))
    np.testing.assert_allclose(again.encode_texts(SENTENCES), model.encode_texts(SENTENCES), 1e-5)
    stored = json.loads((moved / "config.json").read_text())["training"]
    assert stored["encoders.pretrained"] == "clip.safetensors"
    card = (moved / "README.md").read_text()
    for words in ("`tiny-clip`", "`clip.safetensors`", "open_clip_model.safetensors", "24 tokens"):
        assert words in card


@pytest.mark.parametrize("which", ["image", "text"])
def test_stablehlo_computes_the_same_for_any_number_of_inputs(model, exported, which):
    encode = jax.export.deserialize(
        bytearray((exported / f"{which}_encoder.stablehlo").read_bytes())
    ).call
    for count in (1, 3):
        if which == "image":
            inputs = (np.random.default_rng(0).integers(0, 256, (count, 20, 20, 3), np.uint8),)
            expected = model.encode_images(inputs[0])
        else:
            tokens, _ = model.tokenizer.encode(SENTENCES[:count])
            inputs, expected = (
                (tokens, np.zeros((count, 0), np.uint8)),
                model.encode_texts(SENTENCES[:count]),
            )
        np.testing.assert_allclose(encode(*inputs)["embeddings"], expected, atol=1e-6)


def test_an_export_over_another_one_leaves_no_file_of_its_tokenizer(model, exported, tmp_path):
    out = shutil.copytree(exported, tmp_path / "out")
    (out / "tokenizer" / "tokenizer.json").write_text("of another")
    command.export_published(model, out)
    assert kamcl_jax.load(out).tokenizer.identity == model.tokenizer.identity


def test_a_tokenizer_that_was_changed_is_refused(exported, tmp_path):
    changed = shutil.copytree(exported, tmp_path / "changed")
    merges = changed / "tokenizer" / "merges.txt"
    merges.write_text("\n".join(merges.read_text().splitlines()[:-3]))
    with pytest.raises(ExportError, match="is not the tokeniser that was exported"):
        model_folder.read(changed)


def test_an_index_of_it_is_searched_with_the_model_inside(model, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(4):
        noise(number).save(images / f"{number}.png")
    update_index.index_images(model, images, tmp_path / "index")
    index = open_index(tmp_path / "index")
    files = [images / f"{number}.png" for number in range(4)]
    np.testing.assert_allclose(index.embeddings, model.encode_images(files), atol=1e-6)
    query = index.model.encode_texts(SENTENCES[:1])
    (found,) = searching.search(index, query, k=4)
    scores = model.similarity(model.encode_images(files), query)[:, 0]
    assert [one.row for one in found] == np.argsort(-scores).tolist()


def test_it_is_scored_as_it_is_on_a_data_set(model, tmp_path):
    config = tiny_config()
    config.data.dir = str(tmp_path / "data")
    # What a training would refuse: no word is a concept, and a batch is larger than the data.
    config.concepts.min_repeats, config.batch_size, config.queue_length = 99, 1000, 1000
    config.augmentation.resize = config.image_size
    results = evaluate.evaluate_published(model, config, tmp_path / "scored")
    (filled,) = (tmp_path / "data").rglob("*.filled.npy")
    assert np.load(filled).sum() == 6  # the images of the test split alone were decoded
    test = build.build(
        encoders.with_published_encoders(config, model.config), trains=False
    ).data.test
    images = model.encode_images(np.asarray(test.images[np.arange(6)]))
    captions = model.encode_texts(list(test.captions))
    scores = metrics.retrieval_metrics(Embeddings(images, captions), test.image_of_caption)
    assert {name: results["test"][name] for name in scores} == pytest.approx(scores)
    assert "concept_map" not in results["test"]
    assert results["best_step"] == 0
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigError, match="needs a --workdir of its own"):
        evaluate.evaluate_published(model, config, tmp_path / "run")


def test_what_cannot_be_loaded_is_told_in_one_sentence(tiny_published, tmp_path):
    weights = tiny_published.path
    alone = shutil.copy(weights, tmp_path / "alone.safetensors")
    other = tmp_path / "other"
    other.mkdir()
    (other / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1}')
    (other / "merges.txt").write_text("#version: 0.2\n")
    folder = tmp_path / "hugging_face"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "clip"}')
    (folder / "model.safetensors").touch()
    for error, sentence, arguments in [
        (ExportError, "holds a published clip: say of which preset", (folder,)),
        (ConfigError, 'load\\(path, preset="ViT-B-32-quickgelu"\\)', (weights,)),
        (ConfigError, "there is no preset 'ViT-B'", (weights, "ViT-B")),
        (DataError, "no vocabulary at", (weights, tiny_published.preset, tmp_path / "none")),
        (PretrainedError, "no weights at .*gone.pt", (tmp_path / "gone.pt", "ViT-B-32")),
        (ConfigError, "of a preset, which is missing", (tmp_path, "", other)),
        (ConfigError, "has 2 tokens, and the text encoder", (alone, tiny_published.preset, other)),
    ]:
        with pytest.raises(error, match=sentence):
            kamcl_jax.load(*arguments)


def test_pictures_of_any_kind_are_taken(model, tmp_path):
    noise(3).convert("L").save(tmp_path / "grey.png")
    array = np.asarray(noise(3))
    embedded = model.encode_images([tmp_path / "grey.png", array, Image.fromarray(array)])
    np.testing.assert_allclose(embedded[1], embedded[2], atol=1e-6)
    assert abs(embedded[0] - embedded[1]).max() > 1e-3
