"""Shared fixtures: eight simulated devices and one cache of compiled programs."""

import jax

jax.config.update("jax_num_cpu_devices", 8)

import os

import pytest

pytest_plugins = [
    "tiny_model",
    "command_line",
    "small_release",
    "stored_runs",
    "tiny_data_set",
    "tiny_index",
    "tiny_page",
]

LONGEST = ("test_two_processes.py", "test_golden_check.py", "test_kill_and_resume.py")
"""Files of some minutes; first, so that of several workers none is left alone with one."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)  # stable: modules stay together


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """Runs of the same program share their compilation; the user's cache is left alone."""
    base = tmp_path_factory.getbasetemp()
    # One for all workers: a program of which another has written half so far is compiled anew.
    folder = str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder  # of commands that tests start
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
