"""A training in a process of its own: watching from outside what it does, and killing it."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from kamcl_jax.runs.checkpoints import folder_of

ROOT = Path(__file__).resolve().parents[1]

PHASES = ("compiling", "step", "validation", "writing", "report")
"""The phases of a training; imports and loading of data count as compiling."""

_UNFINISHED = "*.orbax-checkpoint-tmp"
_LOOK_EVERY = 0.002  # seconds


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the output and the folder of a training tell about it, while it runs or when killed.

    Attributes:
      compiled: Whether the training step is compiled, or is not needed any more.
      step: The last step that was started, be it by an earlier process.
      validated: The step of the last validation, or that at which this process began.
      writing: Whether a checkpoint is being written.
    """

    compiled: bool = False
    step: int = 0
    validated: int = 0
    writing: bool = False


_EVENTS = re.compile(
    r"(?P<compiled>a step takes )|already trained to step (?P<trained>\d+)"
    r"|training:[^|]*\|[^|]*\| (?P<step>\d+)/\d+ \[|(?P<validated>: validation mR )"
)


def look(output: str, workdir: Path) -> Seen:
    """Returns what can be seen of a training from its output so far and from its folder."""
    compiled, steps, validated = False, [], None
    for event in _EVENTS.finditer(output):
        compiled |= bool(event["compiled"] or event["trained"])
        if event["step"] or event["trained"]:
            steps.append(int(event["step"] or event["trained"]))
        if event["validated"]:
            validated = steps[-1]
    first, step = (steps[0], steps[-1]) if steps else (0, 0)
    writing = any(folder_of(workdir).glob(_UNFINISHED))
    return Seen(compiled, step, first if validated is None else validated, writing)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The steps of an epoch, and of the whole training."""

    epoch: int
    last: int

    def phases(self, seen: Seen) -> list[str]:
        """Returns which of `PHASES` a training is in; `writing` goes beside one of the others."""
        ends = seen.step % self.epoch == 0 or seen.step == self.last
        if not seen.compiled:
            return ["compiling"]
        if ends and seen.validated != seen.step:
            phase = "validation"
        else:
            phase = "report" if seen.step == self.last else "step"
        return [phase, "writing"] if seen.writing else [phase]


class Training:
    """A process of `main.py --mode=train` whose output is a file; it is killed at the block's end.

    Attributes:
      workdir: The folder of its run.
      started: The time of its start by `time.perf_counter`.
      process: The leader of a process group of its own.
    """

    def __init__(self, arguments: list[str], workdir: Path, output: Path, compiled: Path | None):
        """Starts the process.

        Args:
          arguments: The arguments of `main.py` beside mode and workdir.
          workdir: The folder of the run.
          output: The file for all that it prints.
          compiled: A folder of compiled programs to use and fill; None compiles all of them anew.
        """
        environment = {"JAX_PLATFORMS": "cpu"} | os.environ
        environment |= {"PYTHONUNBUFFERED": "1", "TQDM_MININTERVAL": "0"}  # tells every step
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        if compiled:
            environment |= {
                "JAX_COMPILATION_CACHE_DIR": str(compiled),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
        command = [sys.executable, str(ROOT / "main.py"), "--mode=train", f"--workdir={workdir}"]
        self.workdir, self._output = workdir, output
        self.started = time.perf_counter()
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [*command, *arguments],
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def seconds(self) -> float:
        """The seconds since it started."""
        return time.perf_counter() - self.started

    @property
    def output(self) -> str:
        """All that it has printed."""
        return self._output.read_text(errors="replace")

    def look(self) -> Seen:
        """Returns what can be seen of it now."""
        return look(self.output, self.workdir)

    def wait_for(self, condition: Callable[[Seen], bool]) -> bool:
        """Waits until a condition holds; returns False if it ended before."""
        while self.process.poll() is None:
            if condition(self.look()):
                return True
            time.sleep(_LOOK_EVERY)
        return False

    def kill(self) -> bool:
        """Kills it with all its children; returns False if it ended before."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait() == -signal.SIGKILL

    def check(self) -> None:
        """Ends this program if the training ended with an error of its own."""
        if self.process.wait() not in (0, -signal.SIGKILL):
            sys.exit(f"error: main.py failed with {self.process.returncode}; see {self._output}")
