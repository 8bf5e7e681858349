"""The check for a GPU, rehearsed on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from linear_towers import dual_encoder

from examples import gpu_check
from kamcl_jax.benchmark import roofline
from kamcl_jax.benchmark.gpu_check import kernels, precision
from kamcl_jax.benchmark.gpu_check.task import FAILED, LEFT_OUT
from kamcl_jax.config import build
from kamcl_jax.step import train_step
from kamcl_jax.torch_release import golden_check, golden_file

SCRIPT = Path(gpu_check.__file__)


def problems(found):
    """Everything that has no numbers."""
    told = [f"{name}: {part['ended']}" for name, part in found.items() if part["ended"] != "ok"]
    for name, part in found.items():
        for what, result in part["results"].items():
            if isinstance(result, dict) and {FAILED, LEFT_OUT} & result.keys():
                told.append(f"{name}: {what}: {result}")
            if what == "runs":
                told += [str(run["failed"]) for run in result if run["failed"]]
    return told


def test_a_rehearsal_fills_every_part_of_the_report(tmp_path, monkeypatch):
    """In this process, on linear towers, without the original."""

    def make_model(config, num_tokens, num_concepts):
        return dual_encoder(config.embedding_size, num_concepts)

    monkeypatch.setattr(build, "make_model", make_model)
    monkeypatch.setattr(train_step, "compiler_options", lambda *_, **__: build.UNOPTIMISED)
    monkeypatch.setattr(kernels, "PAIRS", dict([*kernels.PAIRS.items()][:1]))
    monkeypatch.setattr(roofline, "matmul_side", lambda: 64)
    monkeypatch.setattr(roofline, "copied_bytes", lambda: 2**16)
    golden = precision.without(golden_file.read(gpu_check.GOLDEN), whole=False)
    monkeypatch.setattr(golden_check, "record", lambda *_: golden)
    check = gpu_check.Check(config=None, work=tmp_path / "work", rehearse=True)

    def launch(name, seconds):
        gpu_check.MEASURE[name](check.task(name, seconds))
        return "ok"

    out = tmp_path / "out"
    found = gpu_check.run(check, out, gpu_check.PARTS, 500.0, launch)
    assert problems(found) == []
    assert json.loads((out / "report.json").read_text()) == found
    assert {path.name for path in out.iterdir()} == {
        "report.md",
        "report.json",
        "step_times.png",
        "race.png",
    }
    text = (out / "report.md").read_text()
    for part in gpu_check.PARTS.values():
        assert f"## {part.title}" in text
    (run,) = found["race"]["results"]["runs"]
    assert list(run["curves"]) == ["ours, float32", "ours, bfloat16"]
    assert all(0 <= point["mR"] <= 100 for (point,) in run["curves"].values())
    assert found["evaluation"]["results"]["indexing"]["images"] == 6


def test_all_parts_together_end_before_ten_minutes_do():
    assert sum(part.seconds for part in gpu_check.PARTS.values()) < 9.5 * 60


@pytest.mark.long
def test_a_rehearsal_beside_the_original(tmp_path):
    """As a user runs it; `KAMCL_TORCH_CHECKOUT` names a clone of the original."""
    pytest.importorskip("torch")
    checkout = os.environ.get("KAMCL_TORCH_CHECKOUT")
    if not checkout:
        pytest.skip("KAMCL_TORCH_CHECKOUT names no clone of the PyTorch original")
    command = [sys.executable, str(SCRIPT), f"--out={tmp_path}", "--rehearse"]
    subprocess.run([*command, f"--torch_checkout={checkout}"], check=True)
    found = json.loads((tmp_path / "report.json").read_text())
    # Its data loader needs torchvision and NLTK.
    assert [told for told in problems(found) if "loader" not in told] == []
    (run,) = found["race"]["results"]["runs"]
    assert {"mR", "mR_by_original"} <= run["curves"]["original"][0].keys()


def test_what_is_not_there_is_told_at_once(tmp_path):
    command = [sys.executable, str(SCRIPT), f"--out={tmp_path / 'out'}"]
    done = subprocess.run([*command, "--rsicd=nowhere"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: --rsicd: there is no folder nowhere" in done.stderr
    assert not (tmp_path / "out").exists()
