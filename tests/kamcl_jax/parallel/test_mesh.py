"""The mesh: where arrays lie, equal results on every mesh, and what is sent between devices."""

import math
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from linear_towers import Towers, create_state
from tiny_model import BATCH, EMBEDDING, IMAGE_SIZE

from kamcl_jax.models.layers import convolve
from kamcl_jax.parallel import mesh
from kamcl_jax.parallel.compilation import collectives, compile_step
from kamcl_jax.step.state import state_layout
from kamcl_jax.step.train_step import make_train_step

MIN_SIZE = 64
"""Entries from which the tiny model's tensors are split: most of its kernels."""


MESHES = [
    # The library's twin of the step runs on such a mesh in every run of the tests.
    pytest.param((8, 1, "replicated"), id="8x1", marks=pytest.mark.long),
    pytest.param((4, 2, "sharded"), id="4x2 with a sharded queue"),
    pytest.param((1, 8, "replicated"), id="1x8", marks=pytest.mark.long),
]


def layout_of(tiny, data, fsdp, queue="replicated"):
    devices, abstract = mesh.make_mesh(data, fsdp), jax.eval_shape(tiny.state)
    return state_layout(devices, abstract, fsdp_min_size=MIN_SIZE, queue=queue)


@pytest.fixture(scope="module", params=MESHES)
def ran(request, tiny):
    """Four steps on a mesh: its layout, what was sent, and the last state and all metrics."""
    layout = layout_of(tiny, *request.param)
    step = make_train_step(tiny.model, tiny.optimizer, tiny.settings, layout)
    compiled = compile_step(step, jax.eval_shape(tiny.state), tiny.batch(), layout)
    state, metrics = jax.device_put(tiny.state(), layout.state), []
    for number in range(4):
        batch = mesh.put_batch(layout, tiny.batch(number))
        assert len(batch["image"].sharding.device_set) == 8
        state, measured = compiled(state, batch)
        metrics.append(jax.device_get(measured))
    sent = collectives(compiled.as_text())
    return SimpleNamespace(layout=layout, sent=sent, state=state, metrics=metrics)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((64, 32), PartitionSpec("fsdp")),
        ((32, 64), PartitionSpec(None, "fsdp")),
        ((3, 3, 8, 66), PartitionSpec(None, None, "fsdp")),  # 66 is not divisible
        ((33, 5), PartitionSpec()),
        ((4, 4), PartitionSpec()),  # too small
        ((), PartitionSpec()),
    ],
)
def test_the_largest_divisible_axis_is_split(shape, spec):
    assert mesh.parameter_spec(shape, fsdp=4, min_size=100) == spec
    assert mesh.parameter_spec(shape, fsdp=1, min_size=100) == PartitionSpec()


def test_a_mesh_takes_all_devices_or_as_many_as_it_says():
    assert dict(mesh.make_mesh().shape) == {"data": 8, "fsdp": 1}
    assert dict(mesh.make_mesh(fsdp=4).shape) == {"data": 2, "fsdp": 4}
    assert dict(mesh.make_mesh(2, 2).shape) == {"data": 2, "fsdp": 2}
    with pytest.raises(ValueError, match="fsdp = 3 does not divide the 8 devices"):
        mesh.make_mesh(fsdp=3)
    with pytest.raises(ValueError, match="data x fsdp = 8 x 2, but there are 8 devices"):
        mesh.make_mesh(8, 2)


def test_parameters_their_keys_and_their_moments_lie_alike(tiny):
    layout = layout_of(tiny, 1, 8)
    adam = layout.state.opt_state[0]
    for other in (layout.state.key_params, adam.mu, adam.nu):
        assert other == layout.state.params
    leaves = jax.tree.leaves(jax.device_put(tiny.state(), layout.state).params)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    assert held < 0.2 * sum(leaf.nbytes for leaf in leaves)


def test_every_mesh_computes_what_one_device_does(ran, trained):
    # Measured: losses within 3e-7, parameters within 4e-7. Sums run in another order, 1e-7 of them;
    # hardest negatives and sorted features that are nearly equal may amplify it, and Adam divides
    # by gradients that may be small: hence thirty times as much.
    for measured, expected in zip(ran.metrics, trained.metrics, strict=True):
        for name, value in expected.items():
            np.testing.assert_allclose(measured[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    last, state = trained.states[-1], jax.device_get(ran.state)
    for field in ("params", "key_params", "batch_stats", "image_queue", "text_queue"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
            getattr(state, field),
            getattr(last, field),
        )
    lies = jax.tree.map(lambda leaf: leaf.sharding.spec, ran.state)
    assert lies == jax.tree.map(lambda place: place.spec, ran.layout.state)


def entries(sent, *kinds):
    return [math.prod(one.shape) for one in sent if one.kind in kinds]


MOVES = ("all-gather", "all-to-all", "collective-permute")
SUMS = ("all-reduce", "reduce-scatter")


def test_gradients_are_summed_and_split_parameters_gathered_but_no_images(ran, tiny):
    assert max(entries(ran.sent, *MOVES)) < IMAGE_SIZE**2 * 3
    leaves = jax.tree.leaves(jax.eval_shape(tiny.state).params)
    kernels = {math.prod(leaf.shape) for leaf in leaves if leaf.ndim == 4}
    assert kernels <= set(entries(ran.sent, *SUMS))
    gathered = {one.shape for one in ran.sent if one.kind == "all-gather"}
    places = jax.tree.leaves(ran.layout.state.params)
    split = {
        leaf.shape
        for leaf, place in zip(leaves, places, strict=True)
        if place.spec != PartitionSpec()
    }
    if ran.layout.mesh.shape["fsdp"] > 1:
        assert split <= gathered
    else:
        assert not split
        assert max(entries(ran.sent, *MOVES)) <= BATCH * EMBEDDING


@pytest.mark.parametrize("queue", ["sharded", "replicated"])
def test_a_sharded_queue_stays_where_it_is(tiny, queue):
    length = 4096  # that no other tensor has
    abstract = jax.eval_shape(partial(create_state, tiny.optimizer, queue_length=length))
    layout = state_layout(mesh.make_mesh(4, 2), abstract, fsdp_min_size=MIN_SIZE, queue=queue)
    step = make_train_step(Towers(), tiny.optimizer, tiny.settings, layout)
    compiled = compile_step(step, abstract, tiny.batch(), layout)
    program = compiled.as_text()
    for array in (f"f32[{{}},{EMBEDDING}]", f"f32[{BATCH},{{}}]"):  # keys, logits of all queries
        assert (array.format(length // 8) in program) == (queue == "sharded")
    assert (f"f32[{length},{EMBEDDING}]" in program) == (queue == "replicated")
    # Neither the keys nor their logits are sent.
    assert max(entries(collectives(program), *MOVES)) <= BATCH * EMBEDDING * 4


def test_compiler_options_change_the_program_and_not_its_results(one_device):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, 8, 8, 64)).astype(np.float32)
    kernel = generator.normal(size=(3, 3, 64, 64)).astype(np.float32)
    convolution = partial(convolve, stride=1)
    told = jax.jit(convolution, compiler_options=mesh.compiler_options(one_device.mesh))
    np.testing.assert_allclose(
        told(x, kernel), jax.jit(convolution)(x, kernel), rtol=1e-4, atol=1e-4
    )
    assert "__ynn_fusion" not in told.lower(x, kernel).compile().as_text()
    with jax.enable_x64(True):  # double precision is left to XLA
        assert mesh.compiler_options(one_device.mesh) is None


def test_an_option_that_xla_does_not_know_is_left_out(one_device, monkeypatch):
    monkeypatch.setattr(mesh, "NO_YNN_CONVOLUTIONS", {"xla_of_another_release": "1"})
    mesh._xla_knows_options.cache_clear()
    assert mesh.compiler_options(one_device.mesh) is None
    mesh._xla_knows_options.cache_clear()
