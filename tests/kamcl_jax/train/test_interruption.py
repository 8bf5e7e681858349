import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kamcl_jax.train.interruption import StopRequest

ROOT = Path(__file__).resolve().parents[3]

TRAINING = """
import sys, time
from kamcl_jax.errors import Stopped
from kamcl_jax.train.interruption import StopRequest
with StopRequest() as request:
    for step in range(1, 10_000):
        print(step, flush=True)
        ends = time.monotonic() + (0.01 if sys.argv[1] == "steps" else 60)
        while time.monotonic() < ends:  # no single long sleep: a signal just before it would wait
            time.sleep(0.01)
        if request.reached(step):
            stopped = Stopped(request.signal, step)
            print(stopped, flush=True)
            sys.exit(stopped.exit_status)
"""


def start(kind: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING, kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert process.stdout.readline() == "1\n"
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_training_after_the_step(number, status):
    training = start("steps")
    training.send_signal(number)
    output, error = training.communicate(timeout=30)
    assert training.returncode == status
    *_, step, last = ["1", *output.splitlines()]
    goes_on = "the same command goes on from there"
    assert last == f"stopped by {number.name} after step {step}; {goes_on}"
    assert error == f"\n{number.name}: stopping after this step; a second one stops at once\n"


def test_a_second_signal_ends_it_at_once():
    training = start("one long step")
    training.send_signal(signal.SIGTERM)
    assert training.stderr.readline() == "\n"
    assert training.stderr.readline().startswith("SIGTERM: stopping after this step")
    training.send_signal(signal.SIGINT)
    _, error = training.communicate(timeout=30)
    assert "KeyboardInterrupt" in error
    assert training.returncode == -signal.SIGINT


def test_only_the_first_is_remembered_and_the_old_handlers_come_back(capsys):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest() as request:
        assert not request.reached(1)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert request.signal is signal.SIGTERM
        assert request.reached(2)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert capsys.readouterr().err.count("stopping after this step") == 1


def test_another_thread_leaves_the_handlers_alone():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    seen = []

    def train():
        with StopRequest() as request:
            seen.append((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))
            seen.append(request.reached(1))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [before, False]
