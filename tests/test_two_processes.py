"""`--distributed`: the demo's config as two real processes on this machine."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kamcl_jax.checkpoints import Checkpoints, folder_of

ROOT = Path(__file__).resolve().parents[1]
STEPS = 20


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The demo for a few steps; fewer scenes, since only they are drawn, embedded and scored."""
    return [
        sys.executable,
        "main.py",
        "--mode=train",
        "--config=configs/synthetic.py",
        f"--config.data.dir={tmp_path_factory.mktemp('data')}",
        "--config.data.options.train=100",
        "--config.data.options.validation=20",
        "--config.data.options.test=20",
        f"--config.max_steps={STEPS}",
        "--config.log_every_steps=1",
    ]


def start(command, *flags):
    return subprocess.Popen(
        [*command, *flags],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def history_of(workdir):
    with Checkpoints(folder_of(workdir), read_only=True) as checkpoints:
        assert checkpoints.latest == STEPS
        return checkpoints.record(STEPS)["history"]


def test_two_processes_compute_what_one_does_and_the_first_one_writes(command, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    output, errors = start(command, f"--workdir={alone}").communicate(timeout=300)
    assert "report: " in output, errors
    with socket.create_server(("localhost", 0)) as server:
        address = f"--coordinator=localhost:{server.getsockname()[1]}"
    several = (f"--workdir={together}", "--distributed", address, "--num_processes=2")
    processes = [start(command, *several, f"--process_id={me}") for me in range(2)]
    try:
        ended = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], ended
    first, second = ended
    assert "report: " in first[0]
    said = [line for line in second[0].splitlines() if not line.startswith("[Gloo]")]
    assert not said
    assert "training:" not in second[1]  # no second bar
    assert len(list((together / "tensorboard").iterdir())) == 1

    one, two = history_of(alone), history_of(together)
    losses = [np.array([row["loss"] for row in history["train"]]) for history in (one, two)]
    assert len(losses[0]) == STEPS
    # The first two steps differ by no more than the order of summation; from then on Adam, whose
    # first steps are of the gradients' signs, multiplies the difference: 4e-4 after 20 steps.
    np.testing.assert_allclose(losses[1][:2], losses[0][:2], rtol=1e-6)
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-3)
    results = [json.loads((run / "report/metrics.json").read_text()) for run in (alone, together)]
    assert results[0].keys() == results[1].keys()
    assert results[1]["val"] == {
        name: value for name, value in two["validation"][0].items() if name in results[1]["val"]
    }
