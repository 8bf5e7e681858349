"""The towers as encoders of KAMCL: padding, concepts and the parameters of the logits."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
import tiny_clip
from tiny_clip import LENGTHS, TINY

from kamcl_jax.models.clip.towers import convolves, dual_encoder


def encode_texts(name, change):
    preset = TINY[name]
    encode = jax.jit(partial(dual_encoder(preset).apply, method="encode_texts"))
    _, tokens = tiny_clip.inputs(preset)
    texts, concepts = encode(
        tiny_clip.variables(preset), change(tokens), LENGTHS, np.zeros((3, 0), np.float32)
    )
    assert concepts.shape == (3, 0)
    return np.asarray(texts)


def behind_the_end(tokens):
    changed = tokens.copy()
    changed[1, LENGTHS[1] :] = 7
    return changed


def test_clip_reads_nothing_behind_the_end_and_siglip_does():
    for name, same in (("clip", True), ("siglip", False)):
        plain, changed = (encode_texts(name, f) for f in (lambda tokens: tokens, behind_the_end))
        assert np.allclose(plain[1], changed[1], atol=1e-6) == same
        np.testing.assert_allclose(plain[[0, 2]], changed[[0, 2]], atol=1e-6)


def test_clip_stops_at_the_first_end_token():
    def with_another_end(tokens):
        changed = tokens.copy()
        changed[1, LENGTHS[1] + 1] = TINY["clip"].text.vocabulary - 1
        return changed

    plain, changed = (encode_texts("clip", f) for f in (lambda tokens: tokens, with_another_end))
    np.testing.assert_allclose(changed, plain, atol=1e-6)


def test_clips_texts_may_be_cut_behind_the_longest():
    whole = encode_texts("clip", lambda tokens: tokens)
    short = encode_texts("clip", lambda tokens: tokens[:, : max(LENGTHS[1:])])
    np.testing.assert_allclose(short[1:], whole[1:], atol=1e-6)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("concepts", ["gated", "beside"])
def test_encoders_predict_concepts_if_asked_to(name, concepts):
    preset = TINY[name]
    model = dual_encoder(preset, num_concepts=5, concepts=concepts)
    images, tokens = tiny_clip.inputs(preset)

    def run():
        inputs = images, tokens, LENGTHS, np.zeros((3, 5), np.float32)
        return model.init_with_output(jax.random.key(0), *inputs, train=False)

    outputs, variables = jax.eval_shape(run)
    for embedding, predicted in outputs:
        assert embedding.shape == (3, preset.embedding_size)
        assert predicted.shape == (3, 5)
    of_logits = {name for name in variables["params"] if name.startswith("logit")}
    siglip = preset.family == "siglip"
    assert of_logits == ({"logit_scale", "logit_bias"} if siglip else {"logit_scale"})
    gate = {"gate"} if concepts == "gated" else set()
    for tower in ("image", "text"):
        assert set(variables["params"][tower]["concept_head"]) == {"linear"} | gate


def test_predicted_concepts_leave_published_embeddings_as_they_are_until_the_gate_opens():
    preset = TINY["clip"]
    variables = tiny_clip.variables(preset)
    _, tokens = tiny_clip.inputs(preset)
    none, words = np.zeros((3, 0), np.float32), np.zeros((3, 5), np.float32)

    @partial(jax.jit, static_argnums=0)
    def encode(model, tree, words):
        return model.apply(tree, tokens, LENGTHS, words, method="encode_texts")[0]

    published = encode(dual_encoder(preset), variables, none)
    head = {"linear": {"kernel": np.ones((8, 5), np.float32), "bias": np.ones(5, np.float32)}}
    for concepts, opened, same in (("gated", 0, True), ("gated", 1, False), ("beside", 0, True)):
        gate = {"gate": np.float32(opened)} if concepts == "gated" else {}
        text = {**variables["params"]["text"], "concept_head": head | gate}
        tree = {**variables, "params": {**variables["params"], "text": text}}
        found = encode(dual_encoder(preset, 5, concepts=concepts), tree, words)
        assert np.allclose(found, published, rtol=1e-6, atol=1e-6) == same


def test_a_clip_has_a_bias_of_the_logits_if_it_is_asked_for():
    model = dual_encoder(TINY["clip"], with_bias=True)
    inputs = *tiny_clip.inputs(TINY["clip"]), LENGTHS, np.zeros((3, 0), np.float32)
    params = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), *inputs)["params"]
    assert set(params) == {"image", "text", "logit_scale", "logit_bias"}
    siglip = dual_encoder(TINY["siglip"])
    assert model.initial_bias == siglip.initial_bias == -10
    assert model == dataclasses.replace(dual_encoder(TINY["clip"]), initial_bias=-10.0)


@pytest.mark.parametrize(("name", "expected"), [("clip", False), ("clip-resnet", True)])
def test_only_a_resnets_speed_depends_on_convolutions(name, expected):
    assert convolves(dual_encoder(TINY[name])) == expected
