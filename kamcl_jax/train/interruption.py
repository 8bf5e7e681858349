"""SIGTERM and SIGINT end a training after the current step, in all processes after the same one."""

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

    Python handles signals in the main thread only. In another one, as in a notebook's, nothing is
    handled.

    Attributes:
      signal: The signal that ends the training, None before one has come. With several processes
        it is set at the step after which all stop.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._received: signal.Signals | None = None
        self._several = jax.process_count() > 1
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handled = [signal.SIGINT] if self._several else [signal.SIGINT, signal.SIGTERM]
            self._previous = {number: signal.signal(number, self._receive) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def reached(self, step: int) -> bool:
        """Whether to stop after this step; the same in all processes.

        With several processes, each must ask after every step: the step that they agree on is the
        first that none of them has asked about yet, and only who asks about it is told.
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
