"""Runs the parts of the check, each within its time, and rewrites the report after each."""

import dataclasses
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from input_pipeline import storage

OK, STOPPED, NO_TIME = "ok", "stopped", "no time left"

LAST_LINES = 30
"""So many lines of what a failed part printed are kept."""

GRACE = 5.0
"""A part knows of so many seconds less than it is given: it should end, not be killed."""

Launch = Callable[[str, float], str]
"""(name of a part, seconds it may take) -> how it ended."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of the check.

    Attributes:
      title: Its heading in the report.
      seconds: How long it may take.
      takes_the_rest: Whether it may also take what the parts before it have left.
    """

    title: str
    seconds: float
    takes_the_rest: bool = False


def run(
    parts: Mapping[str, Part],
    total: float,
    launch: Launch,
    read: Callable[[str], dict[str, Any]],
    write: Callable[[dict[str, Any]], object],
) -> dict[str, Any]:
    """Runs parts in order and writes the report after each; a part that fails stops no other.

    Args:
      parts: Name -> part.
      total: The seconds that all of them may take.
      launch: Runs one part.
      read: Name of a part -> the numbers that it has written down.
      write: Writes the report of what is there by then.

    Returns:
      Name -> how the part ended, what it took, and its numbers.
    """
    started, found, names = time.monotonic(), {}, list(parts)
    for place, name in enumerate(names):
        part = parts[name]
        left = total - (time.monotonic() - started)
        later = sum(parts[other].seconds for other in names[place + 1 :])
        given = max(part.seconds, left - later) if part.takes_the_rest else part.seconds
        given = min(given, left)
        began = time.monotonic()
        if given > GRACE:
            print(f"{name}: {part.title} (at most {given:.0f} s)", flush=True)
            ended = launch(name, given)
        else:
            ended = NO_TIME
        seconds = time.monotonic() - began
        print(f"{name}: {ended.splitlines()[-1]} after {seconds:.0f} s", flush=True)
        found[name] = {
            "title": part.title,
            "ended": ended,
            "seconds": seconds,
            "limit": given,
            "results": read(name),
        }
        write(found)
    return found


def in_process(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Launch:
    """Returns what runs each part as a process of its own, which is killed when its time is up.

    The process gets `--part=NAME --part_seconds=N` besides. Whatever it holds, the GPU's memory
    too, is free for the next one.
    """

    def launch(name: str, seconds: float) -> str:
        whole = [*command, f"--part={name}", f"--part_seconds={seconds - GRACE}"]
        with log.open("ab") as output:
            output.write(f"\n===== {name}\n".encode())
            output.flush()
            start = output.tell()
            process = subprocess.Popen(
                whole,
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its children die with it
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                return f"{STOPPED} when its time was up"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if code == 0:
            return OK
        with log.open("rb") as written:
            written.seek(start)
            lines = written.read().decode(errors="replace").splitlines()
        return "\n".join([*lines[-LAST_LINES:], f"failed with the exit status {code}"])

    return launch


def read_results(folder: Path, name: str) -> dict[str, Any]:
    """Returns what a part has written down so far."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def write_json(path: Path, found: dict[str, Any]) -> None:
    """Writes the numbers of all parts."""
    storage.write_text(path, json.dumps(found, indent=2) + "\n")
