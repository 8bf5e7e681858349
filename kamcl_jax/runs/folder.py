"""A run's folder: whether it can be written, by one training at a time, and seen by all hosts."""

import contextlib
import json
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from filelock import FileLock, Timeout
from jax.experimental import multihost_utils

from input_pipeline import storage
from kamcl_jax.errors import ConfigError
from kamcl_jax.parallel import hosts

_LOCK = "training.lock"
_HOLDER = "training.process"
_TOKEN_BYTES = 16
_CONTENTS = {"checkpoints": True, "tensorboard": True, "report": True, "config.json": False}
"""What a run writes -> whether it is a folder."""

_SECONDS_TO_SEE = 10


def check(workdir: Path) -> None:
    """Checks that a run's folder exists or can be made, and can be written.

    Raises:
      ConfigError: it is a file, or below one, or something in it is not what a run would write
        there, or there is no permission or no space.
    """
    with _told(workdir):
        places = (workdir, *workdir.absolute().parents)
        existing = next(path for path in places if path.exists() or path.is_symlink())
        if existing.exists() and not existing.is_dir():
            raise ConfigError(f"--workdir={workdir} cannot be a folder: {existing} is a file")
        if not existing.exists():
            raise ConfigError(
                f"--workdir={workdir} cannot be a folder: {existing} is a link to nothing"
            )
        for name, folder in _CONTENTS.items():
            path = workdir / name
            if path.exists() and path.is_dir() != folder:
                kinds = ("a file", "a folder")
                raise ConfigError(f"{path} is {kinds[not folder]}; it must be {kinds[folder]}")
        # Permissions do not tell of disks mounted read-only, nor an empty file of full ones.
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".writable.") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Keeps a run's folder to one training; of several processes, process 0 holds the lock.

    The lock is the operating system's: it ends with the process, however that ends.

    Args:
      workdir: made if absent.

    Raises:
      ConfigError: another training holds it, or the folder can't be made or written.
    """
    if not hosts.is_first():
        yield
        return
    exclusive = FileLock(workdir / _LOCK)
    holder = workdir / _HOLDER
    try:
        with _told(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
            exclusive.acquire(timeout=0)
            _write_holder(holder)
    except Timeout:
        who = _read_holder(holder)
        raise ConfigError(
            f"another training runs in {workdir}{f' ({who})' if who else ''}"
        ) from None
    except ConfigError:
        exclusive.release()
        raise
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
        exclusive.release()


def check_shared(workdir: Path) -> None:
    """Checks that all processes see the same folder; all of them call this and raise the same.

    Args:
      workdir: made if absent.

    Raises:
      ConfigError: a process does not see what process 0 writes there, or that cannot write.
    """
    if jax.process_count() == 1:
        return
    token = np.zeros(_TOKEN_BYTES, np.uint8)
    failure: ConfigError | None = None
    if hosts.is_first():
        written = secrets.token_bytes(_TOKEN_BYTES)
        try:
            with _told(workdir):
                workdir.mkdir(parents=True, exist_ok=True)
                _token_file(workdir, written).write_bytes(written)
            token = np.frombuffer(written, np.uint8)
        # The others wait: they are told first.
        except ConfigError as error:
            failure = error
    # Written before its name is told: a network disk remembers for long what was not there.
    shared = np.asarray(multihost_utils.broadcast_one_to_all(token), np.uint8).tobytes()
    if not any(shared):
        raise failure or ConfigError(f"host 0 cannot write into --workdir={workdir}")
    file = _token_file(workdir, shared)
    seen = np.asarray(multihost_utils.process_allgather(np.asarray(_sees(file, shared))))
    if hosts.is_first():
        file.unlink(missing_ok=True)
    blind = np.flatnonzero(~seen.reshape(-1).astype(bool))
    if blind.size:
        raise ConfigError(
            f"host {blind[0]} does not see the --workdir of host 0: "
            "it must lie on a disk that all hosts share"
        )


def _token_file(workdir: Path, token: bytes) -> Path:
    return workdir / f".shared.{token.hex()}"


def _sees(file: Path, content: bytes) -> bool:
    until = time.monotonic() + _SECONDS_TO_SEE
    while True:
        with contextlib.suppress(OSError):
            if file.read_bytes() == content:
                return True
        if time.monotonic() > until:
            return False
        time.sleep(0.1)


def _write_holder(path: Path) -> None:
    # Beside the lock, which whoever tries to take it empties.
    holder = {"process": os.getpid(), "host": socket.gethostname()}
    storage.write_text(path, json.dumps(holder) + "\n")


def _read_holder(path: Path) -> str | None:
    """Returns who holds the lock; None if the file is of one that was killed before."""
    try:
        holder = json.loads(path.read_text())
        process, host = int(holder["process"]), str(holder["host"])
        if host == socket.gethostname():
            os.kill(process, 0)
    except PermissionError:  # another user's process: it is there
        pass
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return f"process {process} on {host}"


@contextlib.contextmanager
def _told(workdir: Path) -> Iterator[None]:
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        raise ConfigError(
            f"--workdir={workdir} cannot be written: {error.strerror or error}"
        ) from error
