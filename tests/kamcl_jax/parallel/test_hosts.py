"""Two real processes on this machine; what one process alone can check is checked in it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kamcl_jax.errors import ConfigError
from kamcl_jax.parallel import hosts
from kamcl_jax.runs import folder

ROOT = Path(__file__).resolve().parents[3]

TWO = """
import os, signal, sys, time
from pathlib import Path
import jax
jax.config.update("jax_platforms", "cpu")
import numpy as np
from jax.experimental import multihost_utils
from kamcl_jax.parallel import hosts, mesh
from kamcl_jax.runs import folder as run_folder
from kamcl_jax.train import interruption
from kamcl_jax.errors import ConfigError, Stopped

me, address, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])

def told(call, *arguments):
    try:
        call(*arguments)
        print("passed")
    except ConfigError as error:
        print(error)

told(hosts.initialise, None, None, None)
hosts.initialise(address, 2, me)
hosts.say("only the first says this")
time.sleep(0.3 * me)
for _ in range(2):
    hosts.barrier("start", 30)
hosts.check_equal("captions", "ab")
told(hosts.check_equal, "training captions", f"{me:040x}")
run_folder._SECONDS_TO_SEE = 0.3
told(run_folder.check_shared, folder / "run")
told(run_folder.check_shared, folder / f"run{me}")
told(run_folder.check_shared, folder / "file" / "run")
with run_folder.lock(folder / "run"):
    hosts.barrier("locked", 30)
with interruption.StopRequest() as request:
    for step in range(1, 1000):
        total = multihost_utils.process_allgather(np.asarray(step)).sum()
        assert total == 2 * step
        if me == 1 and step == 5:
            signal.raise_signal(signal.SIGINT)
        if request.reached(step):
            break
        assert request.signal is None
        time.sleep(0.01 * me)
print(Stopped(request.signal, step))
layout = mesh.replicated(mesh.make_mesh())
rows = mesh.local_rows(layout, 6)
batch = mesh.put_batch(layout, 10.0 ** rows)
print(rows.tolist(), float(jax.jit(lambda x: x.sum(), out_shardings=layout.whole)(batch)))
if me == 0:
    told(hosts.barrier, "late", 1)
    (folder / "ended").touch()
else:
    while not (folder / "ended").exists():
        time.sleep(0.05)
    told(hosts.barrier, "late", 1)
"""


def free_address() -> str:
    with socket.create_server(("localhost", 0)) as server:
        return f"localhost:{server.getsockname()[1]}"


def test_two_processes_wait_compare_and_stop_at_one_step(tmp_path):
    (tmp_path / "file").write_text("no folder")
    address = free_address()
    clusters = ("SLURM", "OMPI", "KUBERNETES", "JAX_", "TPU", "CLOUD_TPU")
    alone = {name: value for name, value in os.environ.items() if not name.startswith(clusters)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(me), address, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=alone | {"PYTHONPATH": str(ROOT)},
        )
        for me in range(2)
    ]
    try:
        ended = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], ended
    first, second = (
        [line for line in output.splitlines() if not line.startswith("[Gloo]")]
        for output, _ in ended
    )
    for lines in (first, second):
        assert lines.pop(0).startswith("no cluster (Slurm, Open MPI, GKE, TPU) tells which")
    assert first.pop(0) == "only the first says this"
    assert first[:3] == [
        "host 1 has other training captions than host 0",
        "passed",
        "host 1 does not see the --workdir of host 0: it must lie on a disk that all hosts share",
    ]
    assert second[:3] == first[:3]
    unwritable = f"--workdir={tmp_path}/file/run"
    assert first[3] == f"{unwritable} cannot be written: Not a directory"
    assert second[3] == f"host 0 cannot write into {unwritable}"
    # The same step in both; who received SIGINT says so, the other is told by the service.
    step = first[4].split("after step ")[1]
    assert first[4].startswith("stopped by SIGTERM after step ")
    assert second[4] == f"stopped by SIGINT after step {step}"
    assert "SIGINT: stopping after this step" in ended[1][1]
    assert "SIGINT" not in ended[0][1]
    # Each reads its own rows of a batch; together they are the batch.
    assert first.pop(5) == "[0, 1, 2] 111111.0"
    assert second.pop(5) == "[3, 4, 5] 111111.0"
    assert first[5] == "host 1 did not come to 'late' within 1 seconds: see what it said"
    assert second[5] == first[5]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["training.lock"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("localhost:1234", None, None), "--coordinator, --num_processes and --process_id go"),
        ((None, 2, 0), "--coordinator, --num_processes and --process_id go together"),
        (("localhost:1234", 2, 2), "--process_id=2 must be 0 or more and below --num_processes=2"),
        (("localhost:1234", 2, -1), "--process_id=-1 must be 0 or more"),
        (("localhost", 2, 0), "--coordinator=localhost must be HOST:PORT"),
        (("localhost:port", 2, 0), "--coordinator=localhost:port must be HOST:PORT"),
    ],
)
def test_flags_that_do_not_fit_are_told(flags, sentence):
    with pytest.raises(ConfigError, match=sentence):
        hosts.initialise(*flags)


def test_one_process_waits_for_nobody(capsys, tmp_path):
    assert hosts.is_first()
    hosts.say("step", 3)
    assert capsys.readouterr().out == "step 3\n"
    hosts.barrier("start", 1)
    hosts.check_equal("captions", "ab")
    folder.check_shared(tmp_path / "run")
    assert not (tmp_path / "run").exists()
