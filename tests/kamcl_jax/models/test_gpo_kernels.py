"""The kernels, interpreted, against a sort and a scan; and how they are lowered for CUDA, unrun."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from kamcl_jax.models import gpo, gpo_kernels
from kamcl_jax.models.gpo import GPO, Gates
from kamcl_jax.models.gpo_kernels import count_ahead
from kamcl_jax.parallel.mesh import make_mesh, replicated

GENERATOR = np.random.default_rng(0)
EXTREMES = np.iinfo(np.int32)


def stable_ranks(values):
    order = np.argsort(-values.astype(np.float64), axis=-1, kind="stable")
    return np.argsort(order, axis=-1)


@pytest.mark.parametrize(
    "shape", [*((2, 5, items) for items in (1, 2, 9, 64, 65, 192, 256)), (2, 16, 70), (3, 11, 70)]
)
@pytest.mark.parametrize("levels", [1, 3, EXTREMES.max])
def test_counts_are_the_ranks_of_a_stable_sort(shape, levels):
    values = GENERATOR.integers(-levels, levels, shape).astype(np.float32)
    values[0, 0, : shape[-1] // 2] = -np.inf
    values[0, 0, shape[-1] // 2 :] = np.inf
    values[-1, -1, ::2] = -0.0
    counts = count_ahead(values)
    assert counts.dtype == jnp.uint8
    np.testing.assert_array_equal(counts, stable_ranks(values))


def test_numbers_of_16_bits_are_ranked_alike():
    values = jnp.asarray(GENERATOR.normal(size=(2, 3, 70)), jnp.bfloat16)
    np.testing.assert_array_equal(count_ahead(values), stable_ranks(np.asarray(values, np.float64)))


@pytest.mark.parametrize(
    ("lengths", "dtype"),
    [({1: [1]}, np.float32), ({2: [2], 6: [6], 40: [40]}, np.float32)]
    + [({2: [2], 40: [1, 3, 39, 40]}, dtype) for dtype in (np.float32, np.float64)],
)
def test_the_kernel_s_states_and_gradients_are_those_of_the_scan(lengths, dtype):
    weights = {
        items: GENERATOR.normal(size=(2, len(counts), items, 8))
        for items, counts in lengths.items()
    }

    def plain(sequences):
        for items, (forward, backward) in sequences.items():
            present = np.arange(items) < np.array(lengths[items])[:, None]
            yield gpo.run(forward, present), gpo.run(backward, present, reverse=True)

    def kernel(sequences):
        counts = map(jnp.array, lengths.values())
        return gpo.run_by_kernel(list(zip(sequences.values(), counts, strict=True)))

    def value_and_gradients(run, sequences):
        def loss(sequences):
            states = dict(zip(lengths, map(jnp.stack, run(sequences)), strict=True))
            return sum(jnp.sum(weights[n] * states[n] ** 2) for n in lengths), states

        return jax.jit(jax.grad(loss, has_aux=True))(sequences)

    def draw(items):
        shapes = ((items, 24), (8, 24), (24,))
        return Gates(*(jnp.asarray(GENERATOR.normal(size=shape), dtype) for shape in shapes))

    with jax.enable_x64(dtype == np.float64):
        sequences = {items: (draw(items), draw(items)) for items in lengths}
        found, expected = (value_and_gradients(run, sequences) for run in (kernel, plain))
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    for ours, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == dtype
        assert np.abs(ours - wanted).max() <= tolerance * np.abs(wanted).max() + 1e-30


# A width that is no power of two leaves the GRU to the scan.
@pytest.mark.parametrize(
    ("dtype", "hidden_width"), [(np.float32, 32), (np.float32, 12), (jnp.bfloat16, 32)]
)
def test_pooling_and_its_gradients_are_the_same(dtype, hidden_width):
    features = jnp.asarray(GENERATOR.integers(-9, 9, (2, 5, 20)), dtype)
    valid = jnp.arange(20) < jnp.array([[20], [11]])
    variables = GPO(hidden_width=hidden_width).init(jax.random.key(0), features)

    def value_and_gradients(kernel):
        module = GPO(hidden_width=hidden_width, kernel=kernel)

        def loss(variables, features):
            pooled = module.apply(variables, features, valid).astype(jnp.float32)
            return jnp.sum(pooled**2)

        return jax.jit(jax.value_and_grad(loss, (0, 1)))(variables, features)

    ours, expected = value_and_gradients("pallas"), value_and_gradients("counting")
    for found, wanted in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        found, wanted = (np.asarray(x, np.float32) for x in (found, wanted))
        rounding = 2**-7 if found.dtype == jnp.bfloat16 else 1e-5
        assert np.abs(found - wanted).max() <= rounding * np.abs(wanted).max()


@pytest.mark.parametrize("samples", [8, 6])
def test_each_device_of_a_mesh_ranks_its_own_samples(samples):
    layout = replicated(make_mesh(2, 2, devices=jax.devices()[:4]))
    values = GENERATOR.integers(-9, 9, (samples, 3, 20)).astype(np.float32)

    def ranked(features):
        features = jnp.sin(features)  # computed on the devices that hold them
        return features, count_ahead(features)

    places = layout.batch if samples == 8 else layout.whole  # six cannot be shared out
    compiled = (
        jax.jit(layout.traced(ranked), in_shardings=places, out_shardings=places)
        .lower(values)
        .compile()
    )
    assert "all-gather" not in compiled.as_text()
    features, counts = compiled(jax.device_put(values, places))
    np.testing.assert_array_equal(counts, stable_ranks(np.asarray(features)))


def test_what_a_launch_cannot_address_is_ranked_by_several(monkeypatch):
    launched, launch = [], gpo_kernels._launch_ranking

    def record(rows, height):
        launched.append(rows.shape)
        return launch(rows, height)

    monkeypatch.setattr(gpo_kernels, "_launch_ranking", record)
    monkeypatch.setattr(gpo_kernels, "MOST_ENTRIES", 130 * 32)
    values = GENERATOR.integers(-9, 9, (5, 70, 20)).astype(np.float32)
    np.testing.assert_array_equal(count_ahead(values), stable_ranks(values))
    assert launched == [(128, 32)] * 3  # 350 rows, in whole programs


def lowered(function, *shapes):
    return jax.jit(function).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("num_items", [1, 7, 192, 256])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_gpu_gets_one_triton_kernel_and_no_loop(num_items, dtype):
    text = lowered(count_ahead, jax.ShapeDtypeStruct((2, 4096, num_items), dtype))
    assert text.count("gpu.triton") == 1
    tiles = -(-num_items // gpo_kernels.ITEMS)
    height = gpo_kernels.ENTRIES // min(gpo_kernels.ITEMS, pl.next_power_of_2(num_items))
    assert f"grid_x = {-(-2 * 4096 // height) * tiles}" in text
    assert "stablehlo.while" not in text


def test_a_gpu_pools_by_kernels_only_if_asked():
    features = jax.ShapeDtypeStruct((2, 64, 192), jnp.float32)
    variables = jax.eval_shape(GPO().init, jax.random.key(0), features)

    def gradient(kernel):
        def loss(variables, features):
            return GPO(kernel=kernel).apply(variables, features).sum()

        return lowered(jax.grad(loss, (0, 1)), variables, features)

    asked, otherwise = gradient("pallas"), gradient("counting")
    assert asked.count("gpu.triton") == 3  # the ranks, and the GRU forward and backward
    assert "stablehlo.while" not in asked
    assert "triton" not in otherwise
    assert "stablehlo.while" in otherwise
