"""Command lines of main.py, each in a process of its own that need not import everything again."""

import dataclasses
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a command did: its exit status and what it printed."""

    status: int
    output: str
    error: str


@pytest.fixture(scope="session")
def command_line(tmp_path_factory) -> Callable[..., Ended]:
    """Runs `python main.py ARGUMENTS` in the root of the repository, on CPUs."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("JAX_PLATFORMS", "cpu")
        # The server of forks imports main.py once; that takes seconds.
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(["main"])
        multiprocessing.forkserver.ensure_running()

    def run(*arguments: str) -> Ended:
        folder = tmp_path_factory.mktemp("command")
        output, error = folder / "output.txt", folder / "error.txt"
        process = processes.Process(target=run_main, args=(arguments, output, error))
        process.start()
        process.join()
        assert process.exitcode is not None
        return Ended(process.exitcode, output.read_text(), error.read_text())

    return run


def run_main(arguments: Sequence[str], output: Path, error: Path) -> None:
    """Does as a shell does: arguments, working directory and both streams are the command's."""
    for stream, path in ((sys.stdout, output), (sys.stderr, error)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream.fileno())
    os.chdir(ROOT)
    sys.argv = ["main.py", *arguments]

    import main

    main.run()
