"""The folders that `--workdir` and `--out` name: can they be written, and by whom?"""

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
from filelock import FileLock, Timeout

from input_pipeline.language import vocabulary_files
from input_pipeline.language.tokenizer import Tokenizer
from kamcl_jax.errors import ConfigError
from kamcl_jax.parallel import hosts

EXPORTED_CONFIG, EXPORTED_WEIGHTS = "config.json", "model.safetensors"
"""The two files by which an exported model is told from a run."""

TOKENIZER = vocabulary_files.WRITTEN
"""The folder, in a run or an exported model, that a published model's tokeniser lies in."""

_LOCK, _HOLDER = "training.lock", "training.process"
_SHARED = ".shared"
_SECONDS_TO_SEE = 10


def holds_exported_model(folder: Path) -> bool:
    """Returns whether a folder holds a model that `--mode=export` has written."""
    return all((folder / name).is_file() for name in (EXPORTED_CONFIG, EXPORTED_WEIGHTS))


def written_tokenizer(folder: Path) -> Path | None:
    """Returns where a run or an exported model holds its tokeniser; None if it holds none."""
    return folder / TOKENIZER if (folder / TOKENIZER).is_dir() else None


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes a published model's tokeniser into a run or an exported model, in place of others."""
    for name in vocabulary_files.NAMES:
        (folder / TOKENIZER / name).unlink(missing_ok=True)
    tokenizer.write(folder / TOKENIZER)


def check_writable(workdir: Path) -> None:
    """Raises a `ConfigError` unless a run's folder exists or can be made, and can be written."""
    places = (workdir, *workdir.absolute().parents)
    existing = next(path for path in places if path.exists() or path.is_symlink())
    if not existing.is_dir():
        kind = "a file" if existing.exists() else "a link to nothing"
        raise ConfigError(f"--workdir={workdir} cannot be a folder: {existing} is {kind}")
    for name in ("checkpoints", "tensorboard", "report"):
        if (workdir / name).is_file():
            raise ConfigError(f"{workdir / name} is a file; it must be a folder")
    if holds_exported_model(workdir):  # whose config a run would replace
        raise ConfigError(f"--workdir={workdir} is an exported model; a run needs another folder")
    try:
        # Permissions do not tell of disks mounted read-only, nor an empty file of full ones.
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".writable.") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _cannot_be_written(workdir, error) from error


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Keeps a run's folder, made if absent, to one training at a time.

    The lock is the operating system's, so it ends with the process, however that ends. Of several
    processes that train together, process 0 holds it.
    """
    if not hosts.is_first():
        yield
        return
    exclusive, holder = FileLock(workdir / _LOCK), workdir / _HOLDER
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        exclusive.acquire(timeout=0)
        # This is not in the lock itself, which is emptied by whoever tries to take it.
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
    except Timeout:
        who = f" ({holder.read_text()})" if holder.exists() else ""
        raise ConfigError(f"another training runs in {workdir}{who}") from None
    except OSError as error:
        exclusive.release()
        raise _cannot_be_written(workdir, error) from error
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        exclusive.release()


def check_shared(workdir: Path) -> None:
    """Raises a `ConfigError` on all processes unless all of them see the same folder.

    All processes must call this. The folder is made if it is absent.
    """
    if jax.process_count() == 1:
        return
    file, failure = workdir / _SHARED, None
    if hosts.is_first():
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            file.touch()
        except OSError as error:
            failure = _cannot_be_written(workdir, error)
    # This is a barrier, too: the others look for the file once it has been written.
    if hosts.failing(failure is not None) is not None:
        raise failure or ConfigError(f"host 0 cannot write into --workdir={workdir}")
    until = time.monotonic() + _SECONDS_TO_SEE  # a network disk may take its time
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.1)
    blind = hosts.failing(not file.exists())
    if hosts.is_first():
        file.unlink(missing_ok=True)
    if blind is not None:
        raise ConfigError(
            f"host {blind} does not see the --workdir of host 0: "
            "it must lie on a disk that all hosts share"
        )


def check_out_folder(out: Path) -> None:
    """Raises a `ConfigError` if `--out` names a file, before any long work starts."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out={out} cannot be a folder: it is a file")


def make_out_folder(out: Path) -> None:
    """Makes the folder that `--out` names, if it is absent."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out={out} cannot be a folder: {error.strerror}") from error


def _cannot_be_written(workdir: Path, error: OSError) -> ConfigError:
    return ConfigError(f"--workdir={workdir} cannot be written: {error.strerror or error}")
