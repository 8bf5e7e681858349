"""`--distributed`: a small training as two real processes on this machine."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from configs import synthetic
from kamcl_jax.runs.checkpoints import Checkpoints, folder_of
from kamcl_jax.train import loop

ROOT = Path(__file__).resolve().parents[1]
STEPS = 200
FIELDS = {
    "image_encoder.module": "noisy_encoders:Image",  # these start quickly
    "text_encoder.module": "noisy_encoders:Text",
    "batch_size": 4,
    "embedding_size": 32,
    "num_concepts": 32,
    "mesh.fsdp_min_size": 256,
    "data.options.size": 48,
    "data.options.train": 160,  # an epoch
    "data.options.validation": 10,
    "data.options.test": 10,
    "max_steps": STEPS,  # some seconds: the signal takes one until all processes know of it
    "log_every_steps": 1,
}


def start_two(outputs, workdir, data):
    """Starts the two processes of a training, which print into files; parameters are shared out."""
    with socket.create_server(("localhost", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
    fields = {**FIELDS, "data.dir": data, "mesh.fsdp": 2}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "fixtures")])
    environment = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    environment["TQDM_MININTERVAL"] = "0"  # every step is told
    return [
        subprocess.Popen(
            [
                *(sys.executable, "main.py", "--mode=train", "--config=configs/synthetic.py"),
                *(f"--config.{name}={value}" for name, value in fields.items()),
                *(f"--workdir={workdir}", "--distributed", f"--coordinator={address}"),
                *("--num_processes=2", f"--process_id={me}"),
            ],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output.open("w"),
            stderr=subprocess.STDOUT,
        )
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


def test_two_processes_stop_together_go_on_and_compute_what_one_does(tmp_path):
    alone, together, data = (tmp_path / name for name in ("alone", "together", "data"))
    config = synthetic.get_config()
    config.update_from_flattened_dict({**FIELDS, "data.dir": str(data), "mesh.data": 1})
    loop.train(config, alone)

    # One of the two is told to stop.
    said = [tmp_path / f"said{me}.txt" for me in range(2)]
    processes = start_two(said, together, data)
    while "| 2/" not in said[0].read_text() and processes[0].poll() is None:
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGINT)
    assert ends(processes) == [143, 130], said[0].read_text() + said[1].read_text()
    stopped = re.search(r"stopped by SIGTERM after step (\d+); the same", said[0].read_text())
    assert 2 <= int(stopped[1]) < STEPS
    # Who received SIGINT says so; JAX's service tells the other, which stops after the same step.
    assert stopped[0].replace("SIGTERM", "SIGINT") in said[1].read_text()
    assert "SIGINT" not in said[0].read_text()

    assert ends(start_two(said, together, data)) == [0, 0], said[0].read_text()
    first, second = (output.read_text() for output in said)
    assert f"going on from the checkpoint of step {stopped[1]}" in first
    assert "report: " in first
    # The second one says nothing but that it joins, and writes nothing.
    (line,) = [line for line in second.splitlines() if not line.startswith("[Gloo]")]
    assert line.startswith("host 1 joins 2 processes")
    assert len(list((together / "tensorboard").iterdir())) == 2  # one a start

    one, two = history_of(alone), history_of(together)
    losses = [np.array([row["loss"] for row in history["train"]]) for history in (one, two)]
    assert [len(of_run) for of_run in losses] == [STEPS, STEPS]
    # The first steps differ by no more than the order of summation; from then on Adam, whose first
    # steps are of the gradients' signs, multiplies the difference.
    np.testing.assert_allclose(losses[1][:2], losses[0][:2], rtol=1e-5)
    np.testing.assert_allclose(losses[1][:20], losses[0][:20], rtol=2e-3)
    results = [json.loads((run / "report/metrics.json").read_text()) for run in (alone, together)]
    assert results[0].keys() == results[1].keys()
    best = {row["step"]: row for row in two["validation"]}[results[1]["best_step"]]
    assert results[1]["val"] == {name: best[name] for name in results[1]["val"]}
