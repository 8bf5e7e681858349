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
    "tiny_published",
]

LONGEST = (
    "test_mesh.py",
    "test_golden_check.py",
    "test_library_twin.py",
    "test_two_processes.py",
    "test_kill_and_resume.py",
    "test_loop.py",
    "test_fine_tuning.py",
)
"""Files of half a minute or more; first, so that of several workers none is left alone with one."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)  # stable: modules stay together


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """Compiles each program once for all tests, workers and commands that tests start."""
    base = tmp_path_factory.getbasetemp()
    # One folder for all workers; a program that another has half written is compiled anew.
    folder = str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled")
    settings = {"compilation_cache_dir": folder, "persistent_cache_min_compile_time_secs": 0.2}
    for name, value in settings.items():
        os.environ[f"JAX_{name.upper()}"] = str(value)  # for the commands
        jax.config.update(f"jax_{name}", value)
