"""Mixed precision: what is cast, what really computes in bfloat16, and how near the results are."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_clip
from flax.traverse_util import flatten_dict

from kamcl_jax.config.build import UNOPTIMISED
from kamcl_jax.models.clip.towers import dual_encoder
from kamcl_jax.step.encoding import cast_floats, encode

POOLING_KERNELS = {(32, 96), (32, 1)}
"""Of the pooling GRUs and their scores, whose arithmetic stays in float32."""

HEAD_KERNEL = (16, 12)
"""Of the tiny model's concept heads, which stay in float32 as well."""


def test_only_floats_are_cast():
    tree = {
        "weights": np.ones(3, np.float32),
        "half": jnp.ones(2, jnp.float16),
        "tokens": np.arange(3),
        "valid": jnp.array([True]),
        "key": jax.random.key(0),
    }
    cast = cast_floats(tree, jnp.bfloat16)
    assert cast["weights"].dtype == cast["half"].dtype == jnp.bfloat16
    assert all(cast[name] is tree[name] for name in ("tokens", "valid", "key"))


def test_gradients_come_back_in_the_dtype_of_the_parameters():
    def loss(params):
        return jnp.sum(cast_floats(params, jnp.bfloat16)["a"] ** 2).astype(jnp.float32)

    gradient = jax.grad(loss)({"a": jnp.array([1.0, 3.0])})["a"]
    assert gradient.dtype == jnp.float32
    np.testing.assert_array_equal(gradient, [2, 6])


@pytest.fixture(scope="module")
def tiny_encoders(tiny):
    """Encodes and differentiates one batch at a dtype, in training mode."""
    batch, variables = tiny.batch(), tiny.state().variables
    images = np.random.default_rng(1).normal(size=(8, 64, 64, 3)).astype(np.float32)

    def apply(params, dtype):
        images_, word_concepts = cast_floats((images, batch["word_concepts"]), dtype)
        return tiny.model.apply(
            {
                "params": cast_floats(params, dtype),
                "batch_stats": variables["batch_stats"],
            },
            images_,
            batch["tokens"],
            batch["lengths"],
            word_concepts,
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: module.name in ("resnet", "skip_thoughts"),
            rngs={"dropout": jax.random.key(0)},
        )

    def loss(params, dtype):
        outputs, updated = apply(params, dtype)
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(outputs)), (outputs, updated)

    def run(dtype):
        return jax.jit(lambda params: jax.grad(lambda p: loss(p, dtype), has_aux=True)(params))

    return apply, run, variables["params"]


@pytest.fixture(scope="module")
def both(tiny_encoders):
    """(gradients, (outputs, updated collections)) in bfloat16 and in float32."""
    _, run, params = tiny_encoders
    return run(jnp.bfloat16)(params), run(jnp.float32)(params)


def dtypes(tree):
    return {leaf.dtype.name for leaf in jax.tree.leaves(tree)}


def relative_error(got, expected):
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


def test_outputs_and_statistics_are_float32_and_near_those_of_float32(both):
    (_, (outputs, updated)), (_, (expected_outputs, expected_updated)) = both
    collections = updated["batch_stats"], expected_updated["batch_stats"]
    for got, expected in ((outputs, expected_outputs), collections):
        assert dtypes(got) == {"float32"}
        pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
        assert max(relative_error(*pair) for pair in pairs) < 3e-2
    assert not np.array_equal(outputs[0][0], expected_outputs[0][0])


def test_gradients_are_float32_and_point_the_same_way(both):
    (gradient, _), (expected, _) = both
    assert dtypes(gradient) == {"float32"}
    for tower in ("image", "text"):
        got, wanted = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree[tower])])
            for tree in (gradient, expected)
        )
        assert relative_error(got, wanted) < 0.1


def test_stages_and_recurrent_states_are_bfloat16(both):
    intermediates = both[0][1][1]["intermediates"]
    (stages,) = intermediates["image"]["resnet"]["__call__"]
    (states,) = intermediates["text"]["skip_thoughts"]["__call__"]
    assert dtypes((stages, states)) == {"bfloat16"}


def operations(jaxpr, name):
    """Yields all equations of one primitive, those of inner programs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == name:
            yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            if hasattr(inner, "eqns"):
                yield from operations(getattr(inner, "jaxpr", inner), name)


def test_convolutions_take_bfloat16_in_both_passes(tiny_encoders):
    _, run, params = tiny_encoders
    jaxpr = jax.make_jaxpr(run(jnp.bfloat16))(params).jaxpr
    convolutions = list(operations(jaxpr, "conv_general_dilated"))
    assert len(convolutions) > 20
    assert {x.aval.dtype.name for e in convolutions for x in e.invars} == {"bfloat16"}


def test_products_take_bfloat16_but_for_pooling_weights_and_concepts(tiny_encoders):
    apply, _, params = tiny_encoders
    jaxpr = jax.make_jaxpr(lambda p: apply(p, jnp.bfloat16))(params).jaxpr
    kernels = {"bfloat16": set(), "float32": set()}
    for product in operations(jaxpr, "dot_general"):
        (dtype,) = {x.aval.dtype.name for x in product.invars}
        kernels[dtype].update(x.aval.shape for x in product.invars[1:])
    assert kernels["float32"] == POOLING_KERNELS | {HEAD_KERNEL}
    assert len(kernels["bfloat16"]) > 5


def long_texts(preset, rows=64):
    """A batch whose texts have one token 52 times each, as short captions have the padding."""
    generator = np.random.default_rng(0)
    side, last = preset.image_size, preset.text.vocabulary - 1
    tokens = generator.integers(1, last, (rows, preset.text.context)).astype(np.int32)
    tokens[:, -53:-1] = 0
    tokens[:, -1] = last
    return {
        "image": generator.normal(size=(rows, side, side, 3)).astype(np.float32),
        "tokens": tokens,
        "lengths": np.full(rows, preset.text.context, np.int32),
        "word_concepts": np.zeros((rows, 0), np.float32),
    }


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_clip_and_siglip_have_nearly_the_gradients_of_float32_leaf_by_leaf(name):
    text = dataclasses.replace(tiny_clip.TINY[name].text, context=64)
    preset = dataclasses.replace(tiny_clip.TINY[name], text=text)
    batch, params = long_texts(preset), tiny_clip.variables(preset)["params"]

    @partial(jax.jit, static_argnums=2, compiler_options=UNOPTIMISED)
    def run(params, batch, dtype):
        def loss(params):
            model, key = dual_encoder(preset), jax.random.key(0)
            encoded, _ = encode(model, params, {}, batch, key, dtype=dtype)
            return tiny_clip.loss(preset, params, encoded.image, encoded.text)

        return jax.value_and_grad(loss)(params)

    (loss, gradient), (exact, expected) = (run(params, batch, x) for x in (jnp.bfloat16, None))
    np.testing.assert_allclose(loss, exact, rtol=1e-2)
    assert dtypes(gradient) == {"float32"}
    found = flatten_dict(gradient, sep="/")
    for path, leaf in flatten_dict(expected, sep="/").items():
        assert relative_error(found[path], leaf) < 0.15, path
