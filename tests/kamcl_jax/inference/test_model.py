"""A trained model used from Python: any images, any sentences, nothing but its folder."""

import dataclasses

import numpy as np
import pytest
import stored_runs
from tiny_index import changed, fill, random_model
from tiny_model import tiny_config

import kamcl_jax
from input_pipeline.errors import DataError
from input_pipeline.language.tokens import tokenize
from kamcl_jax.config import build
from kamcl_jax.errors import ConfigError
from kamcl_jax.evaluate import evaluate
from kamcl_jax.export import model_folder
from kamcl_jax.inference import embed
from kamcl_jax.parallel import mesh
from kamcl_jax.search import index as image_index
from kamcl_jax.search import update_index


@pytest.fixture(scope="module")
def text_model():
    """A random model with KAMCL's text encoder."""
    config = tiny_config()
    config.image_encoder.module = "plain_encoders:Colours"
    return random_model(config)


def test_images_and_sentences_become_unit_vectors_whose_products_are_cosines(tiny_model):
    generator = np.random.default_rng(0)
    sides = ((50, 70), (64, 64), (33, 20), (90, 90), (64, 65))
    images = [generator.integers(0, 256, (*side, 3)).astype(np.uint8) for side in sides]
    seen, captions = tiny_model.encode_images(images), ["a lake", "a road"]
    np.testing.assert_allclose(np.linalg.norm(seen, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(tiny_model.encode_images(images, 2), seen, atol=1e-5)
    said = tiny_model.encode_texts(np.array(captions))
    np.testing.assert_array_equal(tiny_model.encode_texts(captions), said)
    cosines = [[float(np.dot(image, text)) for text in said] for image in seen]
    np.testing.assert_allclose(tiny_model.similarity(seen, said), cosines, atol=1e-6)

    encoded = tiny_model.encode_images_with_concepts(images)
    np.testing.assert_array_equal(encoded.embeddings, seen)
    assert encoded.concepts.shape == (len(images), len(tiny_model.concepts.words))
    assert ((encoded.concepts > 0) & (encoded.concepts < 1)).all()
    # Concepts that only pad have no name and no probability.
    padded = dataclasses.replace(tiny_model.concepts, words=tiny_model.concepts.words[:3])
    fewer = dataclasses.replace(tiny_model, concepts=padded)
    assert fewer.encode_images_with_concepts(images[:1]).concepts.shape == (1, 3)


def test_a_sentence_is_embedded_alike_alone_and_among_others(text_model):
    captions = ["a lake", "a " + "wide " * 40 + "lake", "two planes near a terminal"]
    together = text_model.encode_texts(captions)
    alone = np.concatenate([text_model.encode_texts([caption]) for caption in captions])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_with_the_releases_padding_a_sentence_depends_on_its_batch_alone(text_model):
    fields = {"caption_padding": "release", "evaluation.batch_size": 2}
    model = changed(text_model, fields)
    captions = ["a lake", "a road", "a plane", "a " + "wide " * 9 + "lake"]
    by_default = model.encode_texts(captions)
    in_halves = [model.encode_texts(some) for some in (captions[:2], captions[2:])]
    np.testing.assert_allclose(by_default, np.concatenate(in_halves), atol=1e-5)
    assert np.abs(model.encode_texts(captions, 4)[0] - by_default[0]).max() > 1e-3


def test_with_the_releases_padding_a_batch_is_as_large_on_any_number_of_devices(one_device):
    def encode(variables, tokens, lengths, word_concepts):
        longest = np.full((len(tokens), 1), np.asarray(lengths).max(), np.float32)
        return embed.Encoded(longest, longest)

    lengths = np.array([1, 2, 3, 9, 1, 5, 2], np.int32)
    tokens = np.zeros((7, 9), np.int32)
    for layout in (one_device, mesh.replicated(mesh.make_mesh())):
        encoders = embed.Encoders(encode, encode, layout)
        embedded = embed.embed_texts(encoders, {}, (tokens, lengths, tokens), 3)
        assert embedded[:, 0].tolist() == [3, 3, 3, 9, 9, 9, 2]


def test_a_caption_is_cut_alike_whoever_embeds_it(tmp_path):
    config = tiny_config()
    config.data.dir, config.data.max_tokens = str(tmp_path / "data"), 8
    config.image_encoder.module = "plain_encoders:Colours"  # compiled in no time
    experiment = build.build(config)
    state, test = stored_runs.random_state(experiment), experiment.data.test
    stored_runs.save(experiment, tmp_path / "run")
    encoders = evaluate.make_encoders(experiment)
    expected = embed.embed(encoders, state.variables, test, 8).captions
    captions = list(test.captions)
    lengths = [len(tokenize(caption)) for caption in captions]
    assert min(lengths) <= 8 < 16 < max(lengths)

    def check(embeddings):
        np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-5)

    model = kamcl_jax.load(tmp_path / "run")
    check(model.encode_texts(captions))

    model_folder.write(tmp_path / "exported", model, "# A model\n")
    check(kamcl_jax.load(tmp_path / "exported").encode_texts(captions))

    fill(tmp_path / "images", 2)
    update_index.index_images(model, tmp_path / "images", tmp_path / "index")
    index = image_index.open_index(tmp_path / "index")
    check([index.model.encode_texts([caption])[0] for caption in captions])


def test_unknown_words_are_those_that_are_read_and_a_cut_is_told(tiny_model):
    known = next(word for word in tiny_model.vocabulary.words if word.isalpha())
    sentence = f"The {known}, the zeppelin and -- a Zeppelin or quay!"
    assert tiny_model.unknown_words(sentence) == ["zeppelin", "quay"]
    assert not tiny_model.is_cut(sentence)
    model = changed(tiny_model, {"data.max_tokens": 2})
    assert model.unknown_words("a zeppelin over a quay") == ["zeppelin"]
    assert model.is_cut("a zeppelin over a quay")
    assert not model.is_cut("a zeppelin")


def test_a_folder_with_neither_says_so(tmp_path):
    with pytest.raises(ConfigError, match="holds no checkpoints; train there first"):
        kamcl_jax.load(tmp_path)


@pytest.mark.parametrize(
    ("encode", "wrong", "sentence"),
    [
        ("encode_images", [], "There are no images to encode"),
        ("encode_images", "airport.jpg", "Images are a list, not a single one"),
        (
            "encode_images",
            np.zeros((2, 64, 65, 3), np.uint8),
            r"must be uint8\[N, 64, 64, 3\], not uint8\[2, 64, 65, 3\]; a list takes images of any",
        ),
        ("encode_images", np.zeros((2, 64, 64, 3)), r"not float64\[2, 64, 64, 3\]"),
        ("encode_texts", [], "There are no captions to encode"),
        ("encode_texts", "a lake", "Captions are a list of sentences, not a single one"),
        ("encode_texts", ["a lake", " . "], r"The caption ' \. ' has no word in it"),
    ],
)
def test_what_cannot_be_encoded_is_refused(tiny_model, encode, wrong, sentence):
    with pytest.raises(DataError, match=sentence):
        getattr(tiny_model, encode)(wrong)
