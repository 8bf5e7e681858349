"""Compiled programs: kept for later runs, and what is read from a compiled step."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import pytest
from linear_towers import Towers, create_state

from kamcl_jax.parallel import compilation, mesh
from kamcl_jax.parallel.compilation import Collective
from kamcl_jax.step.state import state_layout
from kamcl_jax.step.train_step import make_train_step

ROOT = Path(__file__).resolve().parents[3]
COMPILES = """
import jax
from kamcl_jax.parallel import compilation
compilation.keep_programs()
print(jax.jit(lambda x: 3 * x + 1)(2))
"""

PROGRAM = """
  %all-reduce.1 = f32[3,64]{1,0} all-reduce(%x), channel_id=1, to_apply=%add
  %ar = (f32[4]{0}, /*index=1*/bf16[2,5]{1,0:T(8,128)}, s32[]) all-reduce-start(%a), channel_id=2
  ROOT %gather = u8[8,67,67,3]{3,2,1,0} all-gather(%y), channel_id=5, dim={0}
  %exchange = (f32[1,1]{1,0}, f32[1,1]{1,0}) all-to-all(%p, %q), channel_id=3
  %done = f32[4]{0} all-reduce-done(%ar)
  %mask = pred[16]{0} collective-permute(%m), channel_id=4
  %again = pred[16]{0} collective-permute(%m), channel_id=4
  %fusion = f32[9]{0} fusion(%all-gather.2), kind=kLoop
"""


@pytest.fixture
def compiling(tmp_path):
    """Runs a program that compiles, with a cache folder of its own; returns its error stream."""

    def run(**variables):
        kept = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        own = {
            "XDG_CACHE_HOME": str(tmp_path),
            "JAX_PLATFORMS": "cpu",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        command = [sys.executable, "-c", COMPILES]
        env = {**kept, **own, **variables}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
        return done.stderr

    return run


def programs(folder):
    return list(folder.rglob("jit__lambda*-cache"))


def test_what_is_compiled_is_kept_for_its_user_and_a_damaged_program_stops_nothing(
    compiling, tmp_path, monkeypatch
):
    compiling()
    (kept,) = programs(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept.parent == compilation.program_folder()
    assert kept.parent.stat().st_mode & 0o077 == 0
    kept.write_bytes(kept.read_bytes()[:-20])
    assert "Error reading persistent compilation cache entry" in compiling()


def test_a_folder_that_cannot_be_made_is_a_note_and_the_variables_of_jax_rule(compiling, tmp_path):
    (tmp_path / "file").write_text("")
    said = compiling(XDG_CACHE_HOME=str(tmp_path / "file"))
    assert "note: compiled programs are not kept: [Errno 20] Not a directory" in said
    assert len(said.strip().splitlines()) == 1
    compiling(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))
    assert {path.parent for path in programs(tmp_path)} == {tmp_path / "own"}


def test_processors_have_folders_of_their_own(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    here = compilation.program_folder()
    assert here == compilation.program_folder()
    assert here.is_relative_to(Path.home() / ".cache" / "kamcl_jax")
    monkeypatch.setattr(Path, "read_text", lambda path: "flags\t: fpu avx2 another")
    assert compilation.program_folder() != here


def test_every_array_that_is_sent_is_found_once():
    found = compilation.collectives(PROGRAM)
    assert found == [
        Collective("all-reduce", "f32", (3, 64), 1),
        Collective("all-reduce", "f32", (4,), 2),
        Collective("all-reduce", "bf16", (2, 5), 2),
        Collective("all-reduce", "s32", (), 2),
        Collective("all-gather", "u8", (8, 67, 67, 3), 5),
        Collective("all-to-all", "f32", (1, 1), 3),
        Collective("all-to-all", "f32", (1, 1), 3),
        Collective("collective-permute", "pred", (16,), 4),
    ]
    assert [one.size for one in found] == [768, 16, 20, 4, 8 * 67 * 67 * 3, 4, 4, 16]


@pytest.mark.parametrize(
    ("kind", "times"),
    [
        ("all-reduce", 2 * 3 / 4),
        ("all-gather", 3 / 4),
        ("all-to-all", 3 / 4),
        ("reduce-scatter", 3),
        ("collective-permute", 1),
    ],
)
def test_a_ring_sends_each_share_around(kind, times):
    one = Collective(kind, "f32", (4, 8))
    assert one.sent(4) == times * 128
    assert one.sent(1) == (128 if kind == "collective-permute" else 0)


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}, use_global_device_ids=true", 2),
        ("[2,4]<=[8], use_global_device_ids=true", 4),
        ("[4,2]<=[2,4]T(1,0), dimensions={0}", 2),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_1'}, use_global_device_ids=true", 2),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}, to_apply=%add", 8),
        ("{}, to_apply=%add", None),
    ],
)
def test_a_ring_may_be_a_group_of_the_devices(groups, size):
    line = f"  %r = f32[4,8]{{1,0}} reduce-scatter(%x), channel_id=7, replica_groups={groups}"
    (one,) = compilation.collectives(line)
    assert one == Collective("reduce-scatter", "f32", (4, 8), 7, size)
    assert one.sent(8) == ((size or 8) - 1) * 128


def test_the_compiled_step_tells_its_memory(tiny):
    create = partial(create_state, tiny.optimizer, queue_length=4096)
    abstract = jax.eval_shape(create)
    layout = state_layout(mesh.make_mesh(8), abstract, fsdp_min_size=64, queue="sharded")
    step = make_train_step(Towers(), tiny.optimizer, tiny.settings, layout)
    program = compilation.compile_step(step, abstract, tiny.batch(), layout)

    taken, state = compilation.memory(program), jax.device_put(create(), layout.state)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    batch = sum(array.nbytes for array in tiny.batch().values()) // 8
    assert taken.arguments == pytest.approx(held + batch, rel=0.01)
    assert taken.reused == pytest.approx(held, rel=0.01)
    assert taken.peak >= taken.arguments + taken.temporary
    assert taken.temporary > 0


def test_the_sentence_has_the_numbers():
    taken = compilation.StepMemory(
        arguments=2_000_000_000, results=1_500_000_000, reused=1_500_000_000, temporary=3 * 10**9
    )
    layout = mesh.replicated(mesh.make_mesh(4, 2))
    assert compilation.describe_memory(taken, layout) == (
        "a step takes 5.00 GB on each of 8 devices: 2.00 for state and batch, 3.00 within the step"
    )
    beside = compilation.describe_memory(taken, layout, table_bytes=1_500_000_000)
    assert ": 2.00 for state and batch, 1.50 for the training data, 3.00 within the step" in beside
