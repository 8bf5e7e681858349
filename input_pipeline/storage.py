"""Writes prepared files so that what is found under its final name is whole.

One process at a time writes into a folder of prepared data, and a process that is killed while it
writes leaves nothing that a later run would trust.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from input_pipeline.errors import DataError

UNFINISHED = ".unfinished"
"""The suffix of what is being written by the process that holds the `lock` of the folder."""

PART = ".part"
"""The suffix for writing without the lock: `lock` does not remove files that end so."""


@contextlib.contextmanager
def replaced(path: Path, suffix: str = UNFINISHED) -> Iterator[IO[bytes]]:
    """Yields a new file to write, which replaces `path` when the block ends without an error.

    It replaces it only when it is safely on the disk; until then its name ends in `suffix`.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=suffix, dir=path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        os.replace(name, path)
        _flush(path.parent)
    finally:
        Path(name).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file that appears under its name only when it is whole."""
    with replaced(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder to fill, which becomes `path` when the block ends without an error.

    There must be no such folder yet, and the caller holds the lock of its parent.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=UNFINISHED, dir=path.parent))
    try:
        unfinished.chmod(0o755)
        yield unfinished
        flush_folder(unfinished)
        os.replace(unfinished, path)
        _flush(path.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def flush_folder(folder: Path) -> None:
    """Waits until all files in a folder are on the disk, so that a power cut can't take them."""
    for path in (*folder.rglob("*"), folder):
        _flush(path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes have left unfinished in a folder that the caller has locked."""
    for left in folder.glob(f".*{UNFINISHED}"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(
    folder: Path, advice: str = "name another folder with data.prepared_dir"
) -> Iterator[None]:
    """Lets one process at a time write into a folder; the others wait and say so.

    The lock is the operating system's: it ends with the process, however that ends. What a killed
    process left unfinished in the folder is removed. `advice` says what to do if files can't be
    written there.
    """
    exclusive = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        exclusive.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process that writes into {folder}", file=sys.stderr, flush=True)
        exclusive.acquire()
    except OSError as error:
        raise DataError(
            f"Files can't be written into {folder} ({error.strerror}): {advice}."
        ) from None
    try:
        remove_unfinished(folder)
        yield
    finally:
        exclusive.release()


@contextlib.contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Turns whatever goes wrong with reading prepared files into advice to make them anew."""
    try:
        yield
    except PermissionError:
        raise
    # The libraries that read the files raise what a damaged one leads them to.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"The prepared files in {folder} are damaged or incomplete: delete that folder, and it "
            f"is made anew ({reason})."
        ) from error
