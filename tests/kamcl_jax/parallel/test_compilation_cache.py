"""Compiled programs are kept for later runs, and nothing about that can stop one."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from kamcl_jax.parallel import compilation_cache

ROOT = Path(__file__).resolve().parents[3]
COMPILES = """
import jax
from kamcl_jax.parallel import compilation_cache
compilation_cache.enable()
print(jax.jit(lambda x: 3 * x + 1)(2))
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
        done = subprocess.run(
            [sys.executable, "-c", COMPILES],
            cwd=ROOT,
            env={**kept, **own, **variables},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "7\n"
        return done.stderr

    return run


def programs(folder):
    return {path.name: path for path in folder.rglob("jit__lambda*-cache")}


def test_what_is_compiled_is_kept_and_a_damaged_program_is_replaced(compiling, tmp_path):
    compiling()
    (kept,) = programs(tmp_path).values()
    assert kept.parent == compilation_cache.default_folder({"XDG_CACHE_HOME": str(tmp_path)})
    assert kept.parent.stat().st_mode & 0o077 == 0
    whole = kept.stat()
    kept.write_bytes(kept.read_bytes()[:-20])
    assert "Error reading" not in compiling()
    assert programs(tmp_path)[kept.name].stat().st_size > whole.st_size - 20
    # Found again, it stays as it is.
    before = kept.stat().st_mtime_ns
    compiling()
    assert kept.stat().st_mtime_ns == before


def test_a_folder_that_cannot_be_written_is_a_note(compiling, tmp_path):
    (tmp_path / "file").write_text("")
    said = compiling(XDG_CACHE_HOME=str(tmp_path / "file"))
    assert f"note: compiled programs are not kept, since {tmp_path}/file/kamcl_jax" in said
    assert len(said.strip().splitlines()) == 1
    assert "there is no home folder" in compiling(XDG_CACHE_HOME="relative")
    assert not (ROOT / "relative").exists()


def test_the_variables_of_jax_rule(compiling, tmp_path):
    compiling(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))
    assert {path.parent for path in programs(tmp_path).values()} == {tmp_path / "own"}
    compiling(JAX_ENABLE_COMPILATION_CACHE="false", XDG_CACHE_HOME=str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_tests_keep_out_of_the_users_cache():
    before = jax.config.jax_compilation_cache_dir
    assert before == os.environ["JAX_COMPILATION_CACHE_DIR"]
    compilation_cache.enable()
    assert jax.config.jax_compilation_cache_dir == before


def test_processors_have_folders_of_their_own(monkeypatch):
    here = compilation_cache.processor()
    assert here == compilation_cache.processor()
    monkeypatch.setattr(Path, "read_text", lambda path: "flags\t: fpu avx2 another")
    assert compilation_cache.processor() != here
    home = compilation_cache.default_folder({"XDG_CACHE_HOME": ""})
    assert home.is_relative_to(Path.home() / ".cache" / "kamcl_jax")


def test_only_what_is_not_whole_is_deleted(tmp_path):
    zstandard = tmp_path / "jit_a-cache"
    zstandard.write_bytes(b"\x28\xb5\x2f\xfd of another compressor")
    damaged, other = tmp_path / "jit_b-cache", tmp_path / "notes"
    damaged.write_bytes(b"")
    other.write_bytes(b"")
    compilation_cache.drop_damaged(tmp_path)
    assert {*tmp_path.iterdir()} == {zstandard, other}
