"""The plan's arithmetic against arrays that really lie on devices, and the budgets of a GPU."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from linear_towers import Towers, create_state
from tiny_model import BATCH, CONCEPTS, EMBEDDING, MAX_TOKENS, QUEUE, WORDS, tiny_config

from examples import accelerator_plan
from kamcl_jax.benchmark import accelerators, launches
from kamcl_jax.benchmark.accelerators import ACCELERATORS
from kamcl_jax.benchmark.launches import Kernel, Loop, Work
from kamcl_jax.config import build, data, recipe
from kamcl_jax.parallel import mesh
from kamcl_jax.parallel.compilation import Collective

H100 = ACCELERATORS["h100"]
ROOT = Path(__file__).resolve().parents[2]
needs_compiler = pytest.mark.skipif(
    not accelerators.has_compiler("h100"), reason="the compiler for NVIDIA's GPUs is not installed"
)


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
        patch.setattr(build, "make_model", lambda *_, **__: Towers())
        return accelerator_plan.plan(config, jax.devices(), WORDS - 1, CONCEPTS, MAX_TOKENS)


@pytest.fixture(scope="module")
def state(config, made):
    optimizer = recipe.make_optimizer(config, steps_per_epoch=1)
    create = partial(create_state, optimizer, queue_length=QUEUE)
    return jax.device_put(jax.jit(create)(), made.layout.state)


def held_by_first_device(tree):
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def test_bytes_of_a_device_are_those_that_it_holds(made, state):
    rows = dict(accelerator_plan.memory_rows(made))
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
    rows = accelerator_plan.network_rows(sent, 2)
    assert rows == [("all-gather", "bf16", 1, 1, 64.0), ("all-reduce", "f32", 2, 3, 24.0)]


GRU = "jit(step)/transpose(jvp(DualEncoder))/DualEncoder.encode_texts/text/skip_thoughts/while"


@pytest.mark.parametrize(
    ("place", "part", "short"),
    [
        (GRU, ("words' GRU", "gradient"), "text/skip_thoughts/while, gradient"),
        (
            "jit(step)/jvp(DualEncoder)/DualEncoder.encode_images/image/aggregator/low_gpo/"
            "low_gpo.weights/forward_gru/while",
            ("GPO, weights", "queries"),
            "image/aggregator/low_gpo/low_gpo.weights/forward_gru/while, queries",
        ),
        (
            "jit(step)/DualEncoder/DualEncoder.encode_images/image/aggregator/low_gpo/cond/"
            "branch_0_fun/while/body/closed_call/add",
            ("GPO, ranks and sums", "keys"),
            "image/aggregator/low_gpo/while/add, keys",
        ),
        ("jit(step)/jvp()/reduce_sum", ("losses", "queries"), "jvp()/reduce_sum, queries"),
        ("jit(step)/add", ("update, augmentation, copies", ""), "add"),
        ("", ("update, augmentation, copies", ""), "no place"),
    ],
)
def test_kernels_belong_to_parts_of_the_step(place, part, short):
    assert accelerator_plan.part_of(place) == part
    assert accelerator_plan.short_place(place) == short


def test_the_worst_loop_comes_first_with_all_of_its_trips(config, made):
    outer = Loop("parts", "jit(step)/while", 4, True)
    words = Loop("words", GRU, 34, False)
    kernels = [
        Kernel("once", "jit(step)/add", 1, Work(bytes=3350)),
        Kernel("inside", "jit(step)/mul", 4, Work(), (outer,)),
        Kernel("gates", f"{GRU}/body/dot_general", 136, Work(5e6, bytes=1e6), (outer, words)),
        Kernel("own", "own/pallas_call", 1, Work(), uncounted="own"),
    ]
    text = "\n".join(accelerator_plan.launch_tables(kernels, H100))
    assert "launches a step: 142\n" in text
    assert "of them in loops: 140, which move 0.1 GB\n" in text
    assert "host has read a condition: at most 136\n" in text
    assert "arithmetic not counted: own\n" in text
    rows = re.findall(r"^\| text/skip_thoughts/while, gradient +\| +(.*?) +\| +(\d+) ", text, re.M)
    assert rows == [("at most 136", "1")]
    assert text.index("text/skip_thoughts/while") < text.index("| while ")


def test_the_predicted_time_is_that_of_launches_kernels_and_network(config, made):
    kernels = [Kernel("a", "", 3, Work(495e9)), Kernel("b", "", 1, Work(bytes=3350e6))]
    sent = [Collective("all-reduce", "f32", (450_000_000,), 1)]
    rows, total = accelerator_plan.times(kernels, sent, 8, "float32", H100)
    assert [row[2] for row in rows] == ["0.0", "4.0", "7.0"]
    assert total == pytest.approx(4 * H100.launch + 4e-3 + 7e-3)
    _, roofline = accelerator_plan.times(kernels, sent, 8, "float32", H100, own=False)
    assert roofline == pytest.approx(7e-3)


def test_the_plan_names_the_numbers_that_it_rests_on(config, made):
    text = accelerator_plan.describe(made, config, "v5e", 1000, 5)
    side = data.train_size(config)
    assert f"{1000 * side**2 * 3 / 1e9:.1f} GB" in text
    assert f"| {1000 * 5 // BATCH} |" in text.replace("  ", "")
    assert "all-reduce" in text
    assert f"launches a step: {launches.launches(made.kernels)}\n" in text
    assert re.search(r"^predicted step: \d+\.\d ms$", text, re.M)
    (command,) = re.findall(
        r"`python (examples/host_feed\.py) --batch_size=(\d+) .* --side=(\d+)`", text
    )
    assert command == ("examples/host_feed.py", str(BATCH), str(side))
    # A CPU's program says nothing of an accelerator's launches.
    simulated = accelerator_plan.describe(made, config, "h100", 1000, 5, own=False)
    assert "launches a step" not in simulated
    assert "predicted step" not in simulated


def planned_for_h100(*arguments):
    """Runs the command, in a process that asks for no GPU's driver."""
    command = [sys.executable, "examples/accelerator_plan.py", "--accelerator=h100", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def number(pattern, text):
    (found,) = re.findall(pattern, text, re.M)
    return float(found)


MOST_LAUNCHES = 1500


@needs_compiler
def test_a_gpu_is_launched_seldom_for_the_small_config():
    text = planned_for_h100("--config=configs/synthetic.py", "--words=60", "--concepts=20")
    assert 0 < number(r"^launches a step: (\d+)$", text) <= MOST_LAUNCHES


@needs_compiler
@pytest.mark.long
@pytest.mark.parametrize(("dtype", "milliseconds"), [("float32", 25), ("bfloat16", 15)])
def test_a_gpu_is_launched_seldom_and_done_soon_for_rsicd(dtype, milliseconds):
    text = planned_for_h100("--config=configs/rsicd.py", f"--config.dtype={dtype}")
    assert 0 < number(r"^launches a step: (\d+)$", text) <= MOST_LAUNCHES
    assert 0 < number(r"^predicted step: ([\d.]+) ms$", text) <= milliseconds
    for tower_pass in ("queries", "keys", "gradient"):
        ranking = rf"^\| GPO, ranks and sums +\| {tower_pass} +\| +\d+ \| +[\d.]+ \| +([\d.]+) "
        assert 0 < number(ranking, text) <= 2  # GB


@needs_compiler
@pytest.mark.long
def test_eight_gpus_sum_gradients_in_few_operations_and_gather_no_activations():
    text = planned_for_h100("--config=configs/rsicd.py", "--config.batch_size=800", "--devices=8")
    collective = r"^\| {} +\| \w+ +\| +(\d+) \| +\d+ \| +([\d.]+) \|$"
    summed = re.findall(collective.format("all-reduce"), text, re.M)
    # One for each layer that normalises and pass: those of queries and keys are the same ones.
    assert sum(int(operations) for operations, _ in summed) <= 2 * 20 + 10
    gathered = re.findall(collective.format("all-gather"), text, re.M)
    embeddings = 4 * 800 * (512 + 512) * 4 / 1e6  # four arrays of 800 embeddings and concepts
    assert gathered
    assert sum(float(megabytes) for _, megabytes in gathered) < embeddings
