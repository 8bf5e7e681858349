"""Compiled programs that later runs find again, with JAX's persistent compilation cache.

JAX's own variables rule: JAX_COMPILATION_CACHE_DIR names another folder,
JAX_ENABLE_COMPILATION_CACHE=false does without.
"""

import errno
import hashlib
import os
import platform
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from kamcl_jax.parallel import hosts

SHORTEST_COMPILATION = 1.0
"""Seconds from which a compilation is kept; JAX's default, said here as the demo rests on it."""

_ZSTANDARD = b"\x28\xb5\x2f\xfd"  # what JAX compresses with where that package is installed


def enable() -> None:
    """Keeps what is compiled from now on, unless the user or JAX's variables say otherwise.

    Not being able to is a note, not an error. Of several processes JAX lets the first one write;
    what it cannot read it compiles anew, with a warning.
    """
    config: Any = jax.config
    if not config.jax_enable_compilation_cache or config.jax_compilation_cache_dir:
        return
    folder = default_folder(os.environ)
    try:
        if not folder.is_absolute():
            raise FileNotFoundError(errno.ENOENT, "there is no home folder")
        # Programs are run as they are found: nobody else may put one there.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        hosts.warn(
            f"compiled programs are not kept, since {folder} cannot be written: {error.strerror} "
            "(JAX_COMPILATION_CACHE_DIR names another folder)"
        )
        return
    drop_damaged(folder)
    config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST_COMPILATION)


def default_folder(environment: Mapping[str, str]) -> Path:
    """Returns the user's folder for programs compiled on this kind of processor.

    Args:
      environment: its XDG_CACHE_HOME says where caches go, ~/.cache if it is empty.
    """
    home = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "kamcl_jax" / "compiled" / processor()


def drop_damaged(folder: Path) -> None:
    """Deletes the programs that are not whole, as a full disk or a kill leaves them.

    JAX would neither use nor replace them, and warn at every start.

    Args:
      folder: of the cache.
    """
    for path in folder.glob("*-cache"):
        try:
            stored = path.read_bytes()
            if not stored.startswith(_ZSTANDARD):
                zlib.decompress(stored)
        except zlib.error:
            path.unlink(missing_ok=True)
        except OSError:  # another process's concern
            continue


def processor() -> str:
    """Returns a short name of the processor and its instructions.

    JAX's key does not tell processors apart, but a CPU's program is machine code: with a home that
    several machines share, one would run another's.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    described = "\n".join([platform.machine(), platform.processor(), *sorted(set(told))])
    return f"{platform.machine()}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
