from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kamcl_jax.config.build import UNOPTIMISED
from kamcl_jax.models.aggregator import upsample_to
from kamcl_jax.models.towers import ConceptHead, ImageEncoder, TextEncoder

ZERO_WORD = 10
CAPTIONS = np.array([[3, 5, 2, 0, 0, 0, 0], [1, 2, 9, 4, 8, 0, 0]])


def text_encoder(caption_padding):
    """The function of the encoder; its parameters are the same for both paddings."""
    encoder = TextEncoder(
        num_tokens=12,
        num_concepts=5,
        embedding_size=8,
        word_width=4,
        hidden_width=6,
        caption_padding=caption_padding,
    )
    inputs = (jnp.ones((1, 4), jnp.int32), jnp.array([4]), jnp.zeros((1, 5)))
    init = jax.jit(partial(encoder.init, train=False), compiler_options=UNOPTIMISED)
    variables = init(jax.random.key(0), *inputs)
    table = variables["params"]["skip_thoughts"]["embedding"]
    variables["params"]["skip_thoughts"]["embedding"] = table.at[ZERO_WORD].set(0)
    return jax.jit(lambda *args: encoder.apply(variables, *args, train=False))


@pytest.fixture(scope="module")
def text():
    return text_encoder("masked")


@pytest.fixture(scope="module")
def release_text():
    return text_encoder("release")


def test_a_caption_depends_on_its_own_words_alone(text):
    concepts = np.eye(3, 5, dtype=np.float32)
    tokens = np.array([[3, 5, 2, 0, 0, 0, 0], [1, 2, 3, 4, 8, 9, 11], [7, 0, 0, 0, 0, 0, 0]])
    together = text(tokens, np.array([3, 7, 1]), concepts)
    for row, length in enumerate((3, 7, 1)):
        alone = text(tokens[row : row + 1, :length], np.array([length]), concepts[row : row + 1])
        for got, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(got[row], expected[0], atol=2e-6)
    changed = tokens.copy()
    changed[0, 1] = 6
    other = text(changed, np.array([3, 7, 1]), concepts)
    assert not np.allclose(other[0][0], together[0][0], atol=1e-4)
    np.testing.assert_allclose(other[0][1:], together[0][1:], atol=1e-6)
    without = text(tokens, np.array([3, 7, 1]), np.zeros_like(concepts))
    assert not np.allclose(without[0], together[0], atol=1e-3)


def test_with_the_releases_padding_a_longer_neighbour_counts(text, release_text):
    concepts = np.eye(2, 5, dtype=np.float32)
    short = np.where(np.arange(7) < 3, CAPTIONS, 0)
    for encode, counts in ((text, False), (release_text, True)):
        beside_short = encode(short, np.array([3, 3]), concepts)
        beside_long = encode(CAPTIONS, np.array([3, 5]), concepts)
        for left, right in zip(beside_short, beside_long, strict=True):
            assert np.allclose(left[0], right[0], atol=1e-4) != counts
    # As if the short one ended in words that are zero vectors.
    lengthened = np.where((CAPTIONS == 0) & (np.arange(7) < 5), ZERO_WORD, CAPTIONS)
    expected = text(lengthened, np.array([5, 5]), concepts)
    # The batch's longest caption counts, not how far the batch is padded beyond it.
    wider = release_text(np.pad(CAPTIONS, ((0, 0), (0, 3))), np.array([3, 5]), concepts)
    for got, padded, wanted in zip(beside_long, wider, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-6)
        np.testing.assert_allclose(padded, wanted, atol=2e-6)


@pytest.mark.parametrize("num_concepts", [3, 8, 11])
def test_hybrid_is_latent_plus_concepts_for_any_number_of_them(num_concepts):
    latent = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    head = ConceptHead(num_concepts)
    variables = head.init(jax.random.key(0), latent)
    hybrid, concept = head.apply(variables, latent)
    params = variables["params"]
    expected = 1 / (1 + np.exp(-(latent @ params["linear"]["kernel"] + params["linear"]["bias"])))
    np.testing.assert_allclose(concept, expected, rtol=1e-5)
    if num_concepts <= 8:
        added = np.pad(expected, ((0, 0), (0, 8 - num_concepts)))
    else:
        added = expected @ params["to_embedding"]["kernel"]
    np.testing.assert_allclose(hybrid - latent, added, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_concepts", [3, 11])
def test_a_gate_leaves_the_latent_vector_as_it_is_until_it_opens(num_concepts):
    latent = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    plain, gated = ConceptHead(num_concepts), ConceptHead(num_concepts, gated=True)
    params = gated.init(jax.random.key(0), latent)["params"]
    ungated = {name: leaf for name, leaf in params.items() if name != "gate"}
    expected, expected_concepts = plain.apply({"params": ungated}, latent)

    @jax.jit
    def run(gate):
        return gated.apply({"params": {**params, "gate": gate}}, latent)

    hybrid, concepts = run(params["gate"])
    np.testing.assert_array_equal(hybrid, latent)
    np.testing.assert_allclose(concepts, expected_concepts, rtol=1e-6)
    for gate in (1.0, -0.5):
        added = gate * (expected - latent)
        np.testing.assert_allclose(run(gate)[0], latent + added, rtol=1e-5, atol=1e-6)
    slope = jax.grad(lambda gate: run(gate)[0].sum())(0.0)
    np.testing.assert_allclose(slope, (expected - latent).sum(), rtol=1e-4)


def test_concepts_that_are_not_added_leave_the_latent_vector_alone():
    latent = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    head = ConceptHead(11, gated=True, added=False)
    (hybrid, concepts), variables = head.init_with_output(jax.random.key(0), latent)
    np.testing.assert_array_equal(hybrid, latent)
    assert set(variables["params"]) == {"linear"}
    _, expected = ConceptHead(11).apply(ConceptHead(11).init(jax.random.key(0), latent), latent)
    np.testing.assert_array_equal(concepts, expected)


@pytest.mark.parametrize(("size", "depth"), [(64, 18), (75, 18), (96, 50)])
def test_image_encoder_takes_any_size_and_depth(size, depth):
    encoder = ImageEncoder(num_concepts=5, embedding_size=8, depth=depth, width=4)
    images = jnp.zeros((2, size, size, 3))
    (hybrid, concept), _ = jax.eval_shape(
        lambda: encoder.init_with_output(jax.random.key(0), images, train=False)
    )
    assert hybrid.shape == (2, 8)
    assert concept.shape == (2, 5)


def test_upsampling_repeats_pixels_and_crops_to_odd_sizes():
    small = jnp.arange(6.0).reshape(1, 2, 3, 1)
    large = upsample_to(small, jnp.zeros((1, 3, 6, 7)))
    np.testing.assert_array_equal(
        large[0, :, :, 0], [[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]]
    )
