"""Files that appear under their name only when they are whole."""

from collections.abc import Callable
from pathlib import Path
from typing import IO

from input_pipeline import storage
from kamcl_jax.errors import ExportError
from kamcl_jax.runs import disk_errors


def write(path: Path, write_content: Callable[[IO[bytes]], object]) -> None:
    """Writes a file, and its folder if that is absent; a file of that name is replaced.

    Args:
      path: of the file.
      write_content: writes into the open file.

    Raises:
      ExportError: it cannot be written; what was there before is still there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with storage.replaced(path) as file:
            write_content(file)
    # The libraries that write raise errors of their own where the disk is full.
    except Exception as error:
        raise ExportError(f"cannot write {path}: {disk_errors.reason(error)}") from error


def write_bytes(path: Path, content: bytes | bytearray) -> None:
    """Writes bytes, as `write` does.

    Raises:
      ExportError: they cannot be written.
    """
    write(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Writes text in UTF-8, as `write` does.

    Raises:
      ExportError: it cannot be written.
    """
    write_bytes(path, text.encode())
