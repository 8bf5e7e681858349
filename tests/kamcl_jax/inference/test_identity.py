"""Which changes of a model are changes of what it says of images and of captions."""

import dataclasses

import jax
import pytest
from tiny_index import changed_config

from input_pipeline.language.word_tokenizer import WordTokenizer
from kamcl_jax.config.fields import Decides, decides, flatten
from kamcl_jax.export import model_folder
from kamcl_jax.inference.identity import identity

BOTH, IMAGES, CAPTIONS, NONE = (True, True), (True, False), (False, True), (False, False)

VALUES = {int: 17, float: 0.0625, str: "other", bool: True}


def differs(model, other):
    """Whether images are embedded otherwise, and whether captions are."""
    one, two = identity(model), identity(other)
    return one.image_encoder != two.image_encoder, one.text_encoder != two.text_encoder


def configured(model, fields):
    return dataclasses.replace(model, config=changed_config(model, fields))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("dtype", "bfloat16", BOTH),
        ("image_size", 32, BOTH),
        ("evaluation.encoders", "key", BOTH),
        ("image_encoder.options.depth", 3, BOTH),
        ("a_field_to_come", 1, BOTH),
        ("caption_padding", "release", CAPTIONS),
        ("data.max_tokens", 5, CAPTIONS),
        ("concepts.lemmatize", True, CAPTIONS),
        ("text_encoder.module", "mine:Encoder", CAPTIONS),
        ("text_encoder.options.depth", 3, CAPTIONS),
        ("optimizer.learning_rate", 0.5, NONE),
        ("loss.extra_terms.uniformity", {"function": "mine:term", "weight": 1.0}, NONE),
        ("augmentation.resize", 99, NONE),
        ("text_encoder.dropout", 0.5, NONE),
        ("data.options.train", 4, NONE),
    ],
)
def test_a_field_counts_where_embeddings_depend_on_it(tiny_model, field, value, expected):
    assert differs(tiny_model, configured(tiny_model, {field: value})) == expected


def test_what_a_run_may_change_when_it_goes_on_does_not_count(tiny_model):
    now = flatten(tiny_model.config)
    free = [name for name in now if decides(name, now) is Decides.NOTHING_LEARNT]
    assert len(free) > 20
    fields = {name: VALUES[type(now[name])] for name in free}
    assert differs(tiny_model, configured(tiny_model, fields)) == NONE


def test_with_the_releases_padding_the_batch_that_captions_are_encoded_in_counts(tiny_model):
    release = configured(tiny_model, {"caption_padding": "release"})
    assert differs(release, configured(release, {"evaluation.batch_size": 3})) == CAPTIONS


def test_weights_count_for_their_tower(tiny_model):
    for tower, expected in (("image", IMAGES), ("text", CAPTIONS)):
        params = dict(tiny_model.variables["params"])
        params[tower] = jax.tree.map(lambda leaf: leaf * 1.01, params[tower])
        variables = {**tiny_model.variables, "params": params}
        other = dataclasses.replace(tiny_model, variables=variables)
        assert differs(tiny_model, other) == expected


def test_words_count_where_they_are_looked_up(tiny_model):
    def swapped(words):
        return dataclasses.replace(words, words=[*words.words[1::-1], *words.words[2:]])

    tokenizer = WordTokenizer(swapped(tiny_model.vocabulary))
    assert differs(tiny_model, dataclasses.replace(tiny_model, tokenizer=tokenizer)) == CAPTIONS
    concepts = swapped(tiny_model.concepts)
    assert differs(tiny_model, dataclasses.replace(tiny_model, concepts=concepts)) == BOTH


def test_an_exported_model_is_the_same_one(tiny_model, tmp_path):
    fields = {"data.dir": "/home/me", "concepts.stop_words": "/home/me/words.txt"}
    run = configured(tiny_model, fields)
    model_folder.write(tmp_path, run, "# A model\n")
    assert differs(run, model_folder.read(tmp_path)) == NONE
