"""The model card says what is true of each kind of model, and nothing else."""

import dataclasses
import re

import pytest
from tiny_index import changed_config

from kamcl_jax.export import model_card


@pytest.fixture
def card_of(tiny_model):
    """Returns the card of a model of the usual encoders with some fields of its config changed."""

    def write(fields, **arguments):
        usual = {"image_encoder.module": "", "text_encoder.module": ""}
        config = changed_config(tiny_model, usual | fields)
        return model_card.write(dataclasses.replace(tiny_model, config=config), None, **arguments)

    return write


def test_fields_are_shown_where_they_are_set_to_something_that_is_read(card_of):
    fields = {"image_encoder.pretrained": "/home/me/a|b.pth", "seed": 0}
    term = {"function": "mine:uniformity", "weight": 0.25}
    card = card_of(fields | {"loss.extra_terms": {"uniformity": term}})
    for shown in ("| `seed`", "`'a\\|b.pth'`", "`image_encoder.depth`", "`'mine:uniformity'`"):
        assert shown in card
    assert re.search(r"`loss.extra_terms.uniformity.weight` +\| `0.25`", card)
    for hidden in ("/home/me", "`text_encoder.pretrained`", "`loss.mask_false_negatives`"):
        assert hidden not in card
    assert "`image_encoder.depth`" not in card_of({"image_encoder.module": "mine:Encoder"})


def test_sizes_and_lines_for_jax_are_there_if_the_files_are(card_of):
    sizes = {"test": (1093, 5465)}
    assert "|   1093 |     5465 |" in card_of({}, sizes=sizes)
    assert "jax.export" in card_of({})
    assert "jax.export" not in card_of({}, stablehlo=False)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"data.name": "synthetic"}, "drawn by a program. On photographs it is of no use"),
        ({"concepts.lemmatize": True}, "A word names a concept by its lemma"),
        ({"caption_padding": "release"}, "embedding depends on the\n  longest one of its batch"),
        ({"data.max_tokens": 7}, "t up to 7:"),
        ({"data.max_tokens": 7}, "[caption.lower().split()[:7] for caption in captions]"),
        (
            {"data.max_tokens": 7},
            "The lines above cut yours (`[:7]`)\n  before they look up tokens",
        ),
        ({"data.max_tokens": 7}, "It reads the first 7 tokens (words and punctuation marks)"),
        ({"image_encoder.module": "mine:Encoder"}, "needed on Python's path, too: `mine:Encoder`."),
    ],
)
def test_what_is_special_is_said_where_it_is_so(fields, sentence, card_of):
    usual = {"data.name": "rsicd"}
    assert sentence in card_of({**usual, **fields})
    assert sentence not in card_of(usual)
