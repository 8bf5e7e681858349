"""Batches that any framework can draw again."""

import numpy as np
import pytest

from kamcl_jax.torch_release import golden_inputs


@pytest.mark.parametrize("caption_lengths", [(4, 14), (1, 1), (2, 3), (20, 30)])
def test_captions_have_the_lengths_that_are_asked_for(caption_lengths):
    shortest, longest = caption_lengths
    batch = golden_inputs.draw_batch(0, 5, 32, caption_lengths)
    tokens, lengths = batch["tokens"], batch["lengths"]
    assert lengths.min() >= shortest
    assert lengths.max() == tokens.shape[1] <= longest
    assert len({*lengths}) > 1 or shortest == longest
    np.testing.assert_array_equal((tokens > 0).sum(1), lengths)
    np.testing.assert_array_equal(np.sort(lengths)[::-1], lengths)
