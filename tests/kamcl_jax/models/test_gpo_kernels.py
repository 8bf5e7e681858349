"""The kernel against a stable sort, interpreted; and that it is lowered for CUDA, unrun."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kamcl_jax.models import gpo, gpo_kernels
from kamcl_jax.models.gpo import GPO
from kamcl_jax.models.gpo_kernels import count_ahead
from kamcl_jax.parallel.mesh import BATCH_AXES, make_mesh

GENERATOR = np.random.default_rng(0)
EXTREMES = np.iinfo(np.int32)


def stable_ranks(keys):
    order = np.argsort(-keys.astype(np.int64), axis=-1, kind="stable")
    return np.argsort(order, axis=-1)


@pytest.mark.parametrize(
    "shape", [*((2, 5, items) for items in (1, 2, 9, 64, 65, 192, 256)), (2, 16, 70), (3, 11, 70)]
)
@pytest.mark.parametrize("levels", [1, 3, EXTREMES.max])
def test_counts_are_the_ranks_of_a_stable_sort(shape, levels):
    keys = GENERATOR.integers(-levels, levels, shape, dtype=np.int32)
    keys[0, 0, : shape[-1] // 2] = EXTREMES.min
    keys[0, 0, shape[-1] // 2 :] = EXTREMES.max
    counts = count_ahead(keys, interpret=True)
    assert counts.dtype == jnp.uint8
    np.testing.assert_array_equal(counts, stable_ranks(keys))


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_pooling_and_its_gradients_are_the_same(dtype):
    features = jnp.asarray(GENERATOR.integers(-9, 9, (2, 5, 70)), dtype)
    variables = GPO().init(jax.random.key(0), features)

    def value_and_gradients(kernel):
        def loss(variables, features):
            pooled = GPO(kernel=kernel).apply(variables, features).astype(jnp.float32)
            return jnp.sum(pooled**2)

        return jax.jit(jax.value_and_grad(loss, (0, 1)))(variables, features)

    jax.tree.map(
        np.testing.assert_array_equal,
        value_and_gradients("pallas"),
        value_and_gradients("counting"),
    )


def test_each_device_of_a_shard_map_ranks_its_own_samples():
    mesh = make_mesh(devices=jax.devices()[:4])
    split = jax.sharding.PartitionSpec(BATCH_AXES)
    ranked = jax.shard_map(
        partial(count_ahead, interpret=True),
        mesh=mesh,
        in_specs=split,
        out_specs=split,
        check_vma=False,
    )
    keys = GENERATOR.integers(-9, 9, (4, 3, 20), dtype=np.int32)
    compiled = jax.jit(ranked).lower(keys).compile()
    assert "all-gather" not in compiled.as_text()
    np.testing.assert_array_equal(compiled(keys), stable_ranks(keys))


@pytest.mark.parametrize("num_items", [1, 7, 192, 256])
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int16])
def test_a_gpu_gets_one_triton_kernel_and_no_loop(num_items, dtype):
    values = jax.ShapeDtypeStruct((2, 4096, num_items), dtype)
    text = jax.jit(count_ahead).trace(values).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("gpu.triton") == 1
    assert f"grid_y = {-(-num_items // gpo_kernels.ITEMS)}" in text
    assert "stablehlo.while" not in text


def test_a_gpu_counts_by_the_kernel_only_if_asked():
    values = jax.ShapeDtypeStruct((2, 64, 192), jnp.float32)

    def lowered(kernel):
        ranks = jax.jit(partial(gpo.descending_ranks, kernel=kernel))
        return ranks.trace(values).lower(lowering_platforms=("cuda",)).as_text()

    assert "triton" in lowered("pallas")
    assert "triton" not in lowered("counting")
    assert "stablehlo.while" in lowered("counting")
