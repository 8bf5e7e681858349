"""`--distributed`: the demo's config as two real processes on this machine."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kamcl_jax.runs.checkpoints import Checkpoints, folder_of

ROOT = Path(__file__).resolve().parents[1]
STEPS = 20


@pytest.fixture(scope="module")
def monkeypatch_of_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def command(tmp_path_factory, monkeypatch_of_module):
    """The demo for a few steps, narrow, with few scenes: most of it is compilation anyway."""
    # Who goes on compiles nothing again.
    compiled = str(tmp_path_factory.mktemp("compiled"))
    monkeypatch_of_module.setenv("JAX_COMPILATION_CACHE_DIR", compiled)
    return [
        sys.executable,
        "main.py",
        "--mode=train",
        "--config=configs/synthetic.py",
        f"--config.data.dir={tmp_path_factory.mktemp('data')}",
        "--config.batch_size=20",
        "--config.image_encoder.width=8",
        "--config.text_encoder.hidden_width=32",
        "--config.embedding_size=32",
        "--config.num_concepts=32",
        "--config.mesh.fsdp_min_size=1024",
        "--config.data.options.train=40",
        "--config.data.options.validation=10",
        "--config.data.options.test=10",
        f"--config.max_steps={STEPS}",
        "--config.log_every_steps=1",
    ]


def start(command, output, *flags):
    """Starts a training that prints into a file."""
    with output.open("w") as file:
        return subprocess.Popen(
            [*command, *flags],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def start_two(command, outputs, workdir):
    with socket.create_server(("localhost", 0)) as server:
        address = f"--coordinator=localhost:{server.getsockname()[1]}"
    flags = (f"--workdir={workdir}", "--distributed", address, "--num_processes=2")
    return [
        start(command, output, *flags, "--config.mesh.fsdp=2", f"--process_id={me}")
        for me, output in enumerate(outputs)
    ]


def ends(processes):
    """Waits for all processes; returns their exit statuses."""
    try:
        return [process.wait(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()


def history_of(workdir):
    with Checkpoints(folder_of(workdir), read_only=True) as checkpoints:
        assert checkpoints.latest == STEPS
        return checkpoints.record(STEPS)["history"]


def test_two_processes_stop_together_go_on_and_compute_what_one_does(command, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    said = [tmp_path / f"said{me}.txt" for me in range(3)]
    assert ends([start(command, said[2], f"--workdir={alone}")]) == [0], said[2].read_text()

    # Parameters are shared out, and one of the two is told to stop.
    processes = start_two(command, said[:2], together)
    while "| 2/" not in said[0].read_text() and processes[0].poll() is None:
        time.sleep(0.02)
    processes[1].terminate()
    assert ends(processes) == [143, 143], said[0].read_text() + said[1].read_text()
    stopped = re.search(r"stopped by SIGTERM after step (\d+); the same", said[0].read_text())
    assert 2 <= int(stopped[1]) < STEPS
    assert stopped[0] in said[1].read_text()

    assert ends(start_two(command, said[:2], together)) == [0, 0], said[0].read_text()
    first, second = (output.read_text() for output in said[:2])
    assert f"going on from the checkpoint of step {stopped[1]}" in first
    assert "report: " in first
    # The second one says nothing but that it joins, and writes nothing.
    lines = [line for line in second.splitlines() if not line.startswith("[Gloo]")]
    assert len(lines) == 1
    assert lines[0].startswith("host 1 joins 2 processes")
    assert len(list((together / "tensorboard").iterdir())) == 2  # one a start

    one, two = history_of(alone), history_of(together)
    losses = [np.array([row["loss"] for row in history["train"]]) for history in (one, two)]
    assert [len(of_run) for of_run in losses] == [STEPS, STEPS]
    # The first steps differ by no more than the order of summation; from then on Adam, whose first
    # steps are of the gradients' signs, multiplies the difference: 4e-4 after 20 steps.
    np.testing.assert_allclose(losses[1][:2], losses[0][:2], rtol=1e-5)
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-3)
    results = [json.loads((run / "report/metrics.json").read_text()) for run in (alone, together)]
    assert results[0].keys() == results[1].keys()
    best = {row["step"]: row for row in two["validation"]}[results[1]["best_step"]]
    assert results[1]["val"] == {name: best[name] for name in results[1]["val"]}
