"""The sizes that an exported encoder takes, and the numbers that it computes with."""

import jax
import numpy as np
import pytest
from tiny_index import changed

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
