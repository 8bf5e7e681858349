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
import sys, time
from pathlib import Path
import jax
jax.config.update("jax_platforms", "cpu")
from kamcl_jax.parallel import hosts
from kamcl_jax.runs import folder as run_folder
from kamcl_jax.errors import ConfigError

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


def test_two_processes_wait_and_compare(tmp_path):
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
    assert first[4] == "host 1 did not come to 'late' within 1 seconds: see what it said"
    assert second[4] == first[4]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["training.lock"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("localhost:1234", None, None), "--coordinator, --num_processes and --process_id go"),
        ((None, 2, 0), "--coordinator, --num_processes and --process_id go together"),
        (("localhost:1234", 2, 2), "--process_id=2 must be 0 or more and below --num_processes=2"),
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
