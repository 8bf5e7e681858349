"""One part's numbers: written down at once, and a failure in their place."""

import json
import time

import pytest

from configs import rsicd
from kamcl_jax.benchmark.gpu_check import task


@pytest.fixture
def one(tmp_path):
    return task.Task(
        config=rsicd.get_config(),
        sizes=task.TOY,
        work=tmp_path,
        saved=tmp_path / "part.json",
        checkout=None,
        golden=tmp_path / "golden.npz",
        ends=time.monotonic() + 60,
    )


def test_what_fails_leaves_a_traceback_and_what_comes_next_goes_on(one):
    def fail():
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    assert one.attempt("first", fail) is None
    assert one.attempt("second", lambda: {"seconds": 1.0}) == {"seconds": 1.0}
    one.ends = time.monotonic() - 1
    assert one.attempt("third", lambda: {"seconds": 1.0}) is None
    saved = json.loads(one.saved.read_text())
    assert saved["first"]["failed"].strip().endswith("RESOURCE_EXHAUSTED: out of memory")
    assert saved["second"] == {"seconds": 1.0}
    assert saved["third"] == {"left_out": "no time was left for it"}
    assert task.numbers_of(saved, ["first", "second", "third", "fourth"]) == {
        "second": {"seconds": 1.0}
    }


def test_data_are_those_of_the_folder_with_as_many_concepts_as_the_original_needs(tmp_path):
    config = task.with_data(rsicd.get_config(), tmp_path / "rsicd", tmp_path)
    assert (config.data.dir, config.data.validation) == (str(tmp_path / "rsicd"), "published")
    assert config.data.pad_concepts
    assert config.mesh.data == 1
