"""The plan's arithmetic against arrays that really lie on devices, on the tiny model."""

from functools import partial

import jax
import numpy as np
import pytest
from linear_towers import Towers, create_state
from tiny_model import BATCH, CONCEPTS, EMBEDDING, MAX_TOKENS, QUEUE, WORDS, tiny_config

from examples import scaling_plan
from kamcl_jax.config import build, data
from kamcl_jax.parallel import mesh
from kamcl_jax.parallel.compilation import Collective


@pytest.fixture(scope="module")
def config():
    config = tiny_config()
    config.mesh.fsdp = 2
    config.mesh.fsdp_min_size = 64
    config.mesh.queue = "sharded"
    return config


@pytest.fixture(scope="module")
def made(config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "make_model", lambda *_: Towers())
        return scaling_plan.plan(config, jax.devices(), WORDS - 1, CONCEPTS, MAX_TOKENS)


@pytest.fixture(scope="module")
def state(config, made):
    optimizer = build.make_optimizer(config, steps_per_epoch=1)
    create = partial(create_state, optimizer, queue_length=QUEUE)
    return jax.device_put(jax.jit(create)(), made.layout.state)


def held_by_first_device(tree):
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def test_bytes_of_a_device_are_those_that_it_holds(made, state):
    rows = dict(scaling_plan.memory_rows(made))
    held = {
        "parameters": (state.params, state.batch_stats),
        "Adam's moments": state.opt_state,
        "key parameters": (state.key_params, state.key_batch_stats),
        "queues": (state.image_queue, state.text_queue),
    }
    for name, tree in held.items():
        assert rows[name] == held_by_first_device(tree), name
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    assert rows["parameters"] < 0.7 * whole
    pointers = 2 * 4
    assert rows["queues"] == 2 * QUEUE // 8 * EMBEDDING * 4 + pointers
    batch = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in made.batch.items()}
    held = held_by_first_device(mesh.put_batch(made.layout, batch))
    assert rows["batch"] == held == sum(leaf.nbytes for leaf in batch.values()) // 8
    taken = made.memory.arguments + made.memory.temporary
    # The state has four more numbers: the steps, the skipped ones, the random key's two.
    assert rows["all"] == pytest.approx(taken, abs=64)


def test_arrays_of_one_operation_are_one_launch():
    sent = [Collective("all-reduce", "f32", (2,), channel) for channel in (1, 1, 2)]
    sent.append(Collective("all-gather", "bf16", (64,), 3))
    rows = scaling_plan.network_rows(sent, 2)
    assert rows == [("all-gather", "bf16", 1, 64.0), ("all-reduce", "f32", 2, 24.0)]


def test_flops_count_every_word_of_the_gru(config, made):
    longer = scaling_plan.loops(config, 8, MAX_TOKENS + 1)[0]
    shorter = scaling_plan.loops(config, 8, MAX_TOKENS)[0]
    assert longer.trips - shorter.trips == 1
    rows, hidden = BATCH // 8, config.text_encoder.hidden_width
    gates = np.zeros((3, rows, hidden)).size
    assert shorter.flops == 3 * 2 * gates * hidden  # two forward passes, one backward
    assert made.flops > (MAX_TOKENS - 1) * shorter.flops


def test_the_plan_names_the_numbers_that_it_rests_on(config, made):
    text = scaling_plan.describe(made, config, scaling_plan.ACCELERATORS["v5e"], 1000, 5)
    side = data.train_size(config)
    assert f"{1000 * side**2 * 3 / 1e9:.1f} GB" in text
    assert f"| {1000 * 5 // BATCH} |" in text.replace("  ", "")
    assert "all-reduce" in text
    # No roofline where XLA counts one part of a batch.
    parts = config.copy_and_resolve_references()
    parts.gradient_accumulation = 2
    device = scaling_plan.ACCELERATORS["h100"]
    assert "No roofline" in scaling_plan.describe(made, parts, device, 1000, 5)
