"""The errors of a precision by groups, on the file's own numbers in the place of ours."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from configs import rsicd
from kamcl_jax.benchmark.gpu_check import precision
from kamcl_jax.benchmark.gpu_check.task import Sizes, Task
from kamcl_jax.torch_release import golden_check, golden_file

GOLDEN = Path(__file__).parents[3] / "golden" / "parity_seed11.npz"


@pytest.fixture(scope="module")
def golden():
    return precision.without(golden_file.read(GOLDEN), whole=True)


def test_groups_hold_all_that_matters_of_the_file(golden):
    rows = golden_check.compare_all(golden, golden, "float32")
    told = precision.summary(rows)
    assert told["errors"] == dict.fromkeys(precision.GROUPS, 0.0)
    assert told["beyond_float32_tolerance"] == []
    assert told["quantities"] == len(golden_file.quantity_names(golden))


def test_an_error_is_told_in_its_group(golden):
    off = {**golden, "eval/visual": golden["eval/visual"] + np.abs(golden["eval/visual"]).max() / 8}
    told = precision.summary(golden_check.compare_all(off, golden, "float32"))
    assert told["errors"].pop("embeddings") == pytest.approx(0.125)
    assert not any(told["errors"].values())
    assert told["beyond_float32_tolerance"] == ["eval/visual"]


def test_each_precision_is_computed_as_it_says(monkeypatch, golden, tmp_path):
    import jax

    seen = {}

    def record(program, run):
        products = jax.config.jax_default_matmul_precision
        seen[program._given.dtype, products] = run.modes
        return golden

    monkeypatch.setattr(golden_check, "record", record)
    task = Task(
        config=rsicd.get_config(),
        sizes=Sizes(),
        work=tmp_path,
        saved=tmp_path / "precision.json",
        checkout=None,
        golden=GOLDEN,
        ends=time.monotonic() + 60,
    )
    precision.measure(task)
    assert seen == dict.fromkeys(precision.PRECISIONS.values(), ("paper",))
    saved = json.loads(task.saved.read_text())
    assert list(saved) == ["float32", "TF32", "bfloat16"]
    assert all(not any(told["errors"].values()) for told in saved.values())
