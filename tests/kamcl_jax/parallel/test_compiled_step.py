from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_towers import Towers, create_state

from kamcl_jax.parallel import compiled_step, mesh
from kamcl_jax.parallel.compiled_step import Collective
from kamcl_jax.step.state import state_layout
from kamcl_jax.step.train_step import make_train_step

PROGRAM = """
  %all-reduce.1 = f32[3,64]{1,0} all-reduce(%x), channel_id=1, to_apply=%add
  %ar = (f32[4]{0}, /*index=1*/bf16[2,5]{1,0:T(8,128)}, s32[]) all-reduce-start(%a), channel_id=2
  ROOT %gather = u8[8,67,67,3]{3,2,1,0} all-gather(%y), channel_id=5, dim={0}
  %exchange = (f32[1,1]{1,0}, f32[1,1]{1,0}) all-to-all(%p, %q), channel_id=3
  %done = f32[4]{0} all-reduce-done(%ar)
  %mask = pred[16]{0} collective-permute(%m), channel_id=4
  %fusion = f32[9]{0} fusion(%all-gather.2), kind=kLoop
"""


def test_every_array_that_is_sent_is_found_once():
    assert compiled_step.collectives(PROGRAM) == [
        Collective("all-reduce", "f32", (3, 64), 1),
        Collective("all-reduce", "f32", (4,), 2),
        Collective("all-reduce", "bf16", (2, 5), 2),
        Collective("all-reduce", "s32", (), 2),
        Collective("all-gather", "u8", (8, 67, 67, 3), 5),
        Collective("all-to-all", "f32", (1, 1), 3),
        Collective("all-to-all", "f32", (1, 1), 3),
        Collective("collective-permute", "pred", (16,), 4),
    ]
    sizes = [one.size for one in compiled_step.collectives(PROGRAM)]
    assert sizes == [768, 16, 20, 4, 8 * 67 * 67 * 3, 4, 4, 16]


@pytest.fixture(scope="module")
def compiled(tiny):
    create = partial(create_state, tiny.optimizer, queue_length=4096)
    layout = state_layout(
        mesh.make_mesh(8), jax.eval_shape(create), fsdp_min_size=64, queue="sharded"
    )
    step = make_train_step(Towers(), tiny.optimizer, tiny.settings, layout)
    abstract = jax.eval_shape(create)
    return layout, create, compiled_step.compile_step(step, abstract, tiny.batch(), layout)


def test_memory_is_that_of_one_device_and_the_state_is_reused(tiny, compiled):
    layout, create, program = compiled
    taken = compiled_step.memory(program)
    leaves = jax.tree.leaves(jax.device_put(create(), layout.state))
    state = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    batch = sum(array.nbytes for array in tiny.batch().values()) // 8
    assert taken.arguments == pytest.approx(state + batch, rel=0.01)
    assert taken.reused == pytest.approx(state, rel=0.01)
    assert taken.peak >= taken.arguments + taken.temporary
    assert taken.temporary > 0


def test_the_sentence_has_the_numbers():
    taken = compiled_step.StepMemory(
        arguments=2_000_000_000, results=1_500_000_000, reused=1_500_000_000, temporary=3 * 10**9
    )
    layout = mesh.replicated(mesh.make_mesh(4, 2))
    assert compiled_step.describe(taken, layout) == (
        "a step takes 5.00 GB on each of 8 devices: 2.00 for state and batch, 3.00 within the step"
    )
    assert ": 0.50 for state and batch, 1.50 for the training data, 3.00 within the step" in (
        compiled_step.describe(taken, layout, table_bytes=1_500_000_000)
    )


def test_the_compiled_step_is_the_step(tiny, compiled):
    layout, create, program = compiled
    step = make_train_step(Towers(), tiny.optimizer, tiny.settings, layout)
    batch = mesh.put_batch(layout, tiny.batch())
    after, metrics = program(jax.device_put(create(), layout.state), batch)
    expected, expected_metrics = step(jax.device_put(create(), layout.state), batch)
    jax.tree.map(np.testing.assert_array_equal, (after, metrics), (expected, expected_metrics))
    assert jnp.isfinite(metrics["loss"])
