"""SIGTERM and SIGINT end a training after the current step, in all processes after the same."""

import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp


class StopRequest:
    """Remembers the first SIGTERM or SIGINT while its `with` block runs; a second ends it at once.

    With several processes, JAX's preemption service notices SIGTERM in any of them and agrees with
    the others on a step; SIGINT is handed on to it as SIGTERM. The service has its own handler,
    which Python does not know of and which must stay; it notices no second SIGTERM.

    Outside the main thread signals cannot be handled, and nothing is: as in a notebook's thread.

    Attributes:
      signal: the first one received, None before. With several processes: from the step on at
        which all stop.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._received: signal.Signals | None = None
        self._several = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._several = jax.process_count() > 1
        if threading.current_thread() is threading.main_thread():
            handled = [signal.SIGINT] if self._several else [signal.SIGINT, signal.SIGTERM]
            for number in handled:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous.items():
            # None: a handler that was not Python's, which Python cannot put back.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
        self._previous.clear()

    def reached(self, step: int) -> bool:
        """Whether to stop after this step; the same in all processes.

        With several processes, each must ask after every step: the step agreed on is the first
        that no process has asked about yet, and it is told to none that skips it.

        Args:
          step: just taken, counted alike in all processes.
        """
        if self._several and ocp.multihost.reached_preemption(step):
            self.signal = self._received or signal.SIGTERM
        return self.signal is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise KeyboardInterrupt
        self._received = signal.Signals(number)
        print(
            f"\n{self._received.name}: stopping after this step; a second one stops at once",
            file=sys.stderr,
            flush=True,
        )
        if self._several:
            signal.raise_signal(signal.SIGTERM)
        else:
            self.signal = self._received
