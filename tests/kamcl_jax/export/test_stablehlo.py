"""The sizes that an exported encoder takes, and the numbers that it computes with."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_index import changed

from configs import synthetic
from kamcl_jax.config import build
from kamcl_jax.export import stablehlo


def test_platforms_and_sizes_are_open_but_for_captions_that_should_have_been_cut(tiny_model):
    model = changed(tiny_model, {"data.max_tokens": 3})
    known = len(model.concepts)
    for of, most in ((tiny_model, stablehlo.MOST_TOKENS), (model, 3)):
        read = jax.export.deserialize(stablehlo.text_encoder(of))
        assert read.platforms == stablehlo.PLATFORMS
        tokens, concepts = read.in_avals
        assert [str(size) for size in tokens.shape] == ["b", "t"]
        assert (str(concepts.shape[0]), concepts.shape[1]) == ("b", known)
        assert read.call(np.ones((2, 3), np.int32), np.zeros((2, known), np.uint8))
        with pytest.raises(ValueError, match="shapes") as refused:
            read.call(np.ones((2, most + 1), np.int32), np.zeros((2, known), np.uint8))
        assert f"the symbolic shape constraint t <= {most}" in str(refused.value.__cause__)


def test_bfloat16_models_are_exported_as_they_compute(tiny_model):
    content = stablehlo.text_encoder(changed(tiny_model, {"dtype": "bfloat16"}))
    assert "bf16" in str(jax.export.deserialize(content).mlir_module())


@pytest.fixture(scope="module")
def papers_model():
    """Returns a model with the paper's encoders, narrow and all zero."""
    config = synthetic.get_config()
    config.image_size, config.embedding_size, config.image_encoder.width = 64, 16, 4
    config.text_encoder.update({"word_width": 6, "hidden_width": 10})
    model = build.make_model(config, num_tokens=9, num_concepts=5)
    inputs = jnp.zeros((1, 64, 64, 3)), jnp.ones((1, 3), int), jnp.ones(1, int), jnp.zeros((1, 5))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, train=False))
    return SimpleNamespace(
        config=config,
        words=SimpleNamespace(num_tokens=9),
        concept_width=5,
        concepts=list("abcde"),
        variables=jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes),
    )


def test_the_papers_encoders_are_exported_for_all_platforms_and_sizes(papers_model):
    images = jax.export.deserialize(stablehlo.image_encoder(papers_model))
    texts = jax.export.deserialize(stablehlo.text_encoder(papers_model))
    assert images.platforms == texts.platforms == stablehlo.PLATFORMS
    for batch, words in ((1, 3), (2, 70)):
        tokens = np.ones((batch, words), np.int32)
        found = texts.call(tokens, np.zeros((batch, 5), np.uint8))
        assert found["embeddings"].shape == (batch, 16)
        np.testing.assert_allclose(found["concepts"], 0.5)  # a sigmoid of zeros
