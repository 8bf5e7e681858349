"""A signal is remembered until a step has ended; real processes are stopped by other tests."""

import signal
import threading

import pytest

from kamcl_jax.errors import Stopped
from kamcl_jax.train.interruption import StopRequest


def handlers():
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_is_remembered_and_the_second_ends_at_once(number, status, capsys):
    before = handlers()
    with StopRequest() as request:
        assert not request.reached(1)
        signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert request.signal is number
        assert request.reached(2)
    assert handlers() == before
    said = f"{number.name}: stopping after this step; a second one stops at once"
    assert capsys.readouterr().err.split("\n") == ["", said, ""]
    stopped = Stopped(request.signal, 12)
    assert str(stopped) == (
        f"stopped by {number.name} after step 12; the same command goes on from there"
    )
    assert stopped.exit_status == status


def test_another_thread_leaves_the_handlers_alone():
    before, seen = handlers(), []

    def train():
        with StopRequest() as request:
            seen.extend([handlers(), request.reached(1)])

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [before, False]
