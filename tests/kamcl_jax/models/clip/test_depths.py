"""Where each parameter of a dual encoder lies, counted from its embedding downwards."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_clip
from flax.traverse_util import flatten_dict, unflatten_dict
from tiny_clip import LENGTHS, TINY

from kamcl_jax.models.clip.depths import from_top
from kamcl_jax.models.clip.towers import dual_encoder
from kamcl_jax.models.towers import DualEncoder, ImageEncoder, TextEncoder


def abstract_params(model, images, tokens):
    init = partial(model.init, train=False)
    words = np.zeros((3, 5), np.float32)
    return jax.eval_shape(init, jax.random.key(0), images, tokens, LENGTHS, words)["params"]


def depths(preset):
    params = abstract_params(dual_encoder(preset, 5), *tiny_clip.inputs(preset))
    found = from_top(params)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    return flatten_dict(found, sep="/")


def below(found, start):
    return {depth for path, depth in found.items() if path.startswith(start)}


@pytest.mark.parametrize("name", ["clip", "siglip"])
@pytest.mark.parametrize("layers", [2, 3])
def test_depths_grow_from_the_embedding_to_the_pixels_and_words(name, layers):
    preset = TINY[name]
    image = dataclasses.replace(preset.image, layers=layers)
    found = depths(dataclasses.replace(preset, image=image))
    for tower, count, first in (("image", layers, "patches"), ("text", 1, "tokens")):
        start = f"{tower}/tower/"
        for block in range(count):
            assert below(found, f"{start}transformer/block_{block}/") == {count - block}
        for part in (first, "positions"):
            assert below(found, start + part) == {count + 1}
        assert below(found, f"{start}norm/") == {0}
        assert below(found, f"{tower}/concept_head/") == {0}
        assert below(found, start) == set(range(count + 2))
    assert found["logit_scale"] == 0
    behind = ["query", "pooling_attention", "pooling_mlp", "pooling_norm"]
    for part in behind if name == "siglip" else ["projection"]:
        assert below(found, f"image/tower/{part}") == {0}
    if name == "clip":
        assert below(found, "image/tower/class_embedding") == {layers + 1}
        assert below(found, "image/tower/norm_before") == {layers + 1}


def test_towers_without_blocks_have_no_depths():
    found = depths(TINY["clip-resnet"])
    assert below(found, "image/") == {0}
    assert below(found, "text/") == {0, 1, 2}
    own = DualEncoder(ImageEncoder(5, 8, width=4), TextEncoder(12, 5, 8, 4, 6))
    images, tokens = jnp.zeros((3, 64, 64, 3)), jnp.ones((3, 4), jnp.int32)
    assert set(jax.tree.leaves(from_top(abstract_params(own, images, tokens)))) == {0}


def test_a_part_that_keeps_the_last_block_keeps_its_depths():
    whole = depths(TINY["clip"])
    kept = {
        path: depth for path, depth in whole.items() if depth < 2 and not path.endswith("kernel")
    }
    assert flatten_dict(from_top(unflatten_dict(kept, sep="/")), sep="/") == kept
