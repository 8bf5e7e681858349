"""Several processes that train one model together: joining, waiting, and comparing."""

import hashlib
import re
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

from kamcl_jax.errors import ConfigError


def initialise(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    timeout_seconds: int = 300,
) -> None:
    """Joins the processes of one training; to be called before anything asks JAX for its devices.

    Args:
      coordinator: HOST:PORT of process 0, which listens there. Where all three are None, they are
        taken from the cluster (Slurm, Open MPI, GKE, a TPU pod).
      num_processes: How many processes train together.
      process_id: The number of this process, from 0.
      timeout_seconds: How long to wait for the others.
    """
    place = (coordinator, num_processes, process_id)
    if coordinator is not None and num_processes is not None and process_id is not None:
        _check_place(coordinator, num_processes, process_id)
        # Where these cannot meet, JAX aborts the process: it raises nothing to be rephrased.
        print(
            f"host {process_id} joins {num_processes} processes at {coordinator} (JAX aborts if "
            f"host 0 cannot listen there, or if one has not come after {timeout_seconds} seconds)",
            file=sys.stderr,
            flush=True,
        )
    elif any(value is not None for value in place):
        raise ConfigError(
            "--coordinator, --num_processes and --process_id go together: "
            "give all three, or none on a cluster that tells them"
        )
    try:
        jax.distributed.initialize(*place, initialization_timeout=timeout_seconds)
    # Each cluster's detection raises whatever reading its environment leads to.
    except (RuntimeError, ValueError, LookupError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            "no cluster (Slurm, Open MPI, GKE, TPU) tells which processes train together: "
            f"give --coordinator, --num_processes and --process_id ({reason})"
        ) from error


def _check_place(coordinator: str, num_processes: int, process_id: int) -> None:
    if not re.fullmatch(r".+:\d+", coordinator):
        raise ConfigError(f"--coordinator={coordinator} must be HOST:PORT, like 10.0.0.1:1234")
    if not 0 <= process_id < num_processes:
        raise ConfigError(
            f"--process_id={process_id} must be 0 or more and below --num_processes={num_processes}"
        )


def is_first() -> bool:
    """Whether this process is the one that writes and talks: process 0."""
    return jax.process_index() == 0


def say(*words: object) -> None:
    """Prints on process 0 only."""
    if is_first():
        print(*words, flush=True)


def warn(sentence: str) -> None:
    """Prints a note to the error stream, on process 0 only."""
    if is_first():
        print(f"note: {sentence}", file=sys.stderr, flush=True)


def failing(failed: bool) -> int | None:
    """Returns the first process on which something failed, or None; all processes call this."""
    if jax.process_count() == 1:
        return 0 if failed else None
    flags = np.asarray(multihost_utils.process_allgather(np.asarray(failed)))
    return int(np.argmax(flags)) if flags.any() else None


def barrier(name: str, timeout_seconds: int) -> None:
    """Waits until all processes have come to the place of that name; the devices take no part.

    The slowest process may take `timeout_seconds` longer than the fastest one.
    """
    import orbax.checkpoint as ocp  # here, since embedding a sentence needs none of it

    try:
        ocp.multihost.get_barrier_sync_fn()(key=name, timeout_ms=timeout_seconds * 1000)
    except RuntimeError as error:
        missing = re.search(r"timed out task names:\s*(\d+)", str(error))
        who = f"host {missing[1]}" if missing else "a host"
        raise ConfigError(
            f"{who} did not come to '{name}' within {timeout_seconds} seconds: see what it said"
        ) from error


def check_equal(what: str, digest: str) -> None:
    """Checks that all processes hold the same; all of them call this, and raise alike.

    The hexadecimal digest is of what this process holds.
    """
    if jax.process_count() == 1:
        return
    # Digests of all lengths become 32 bytes: the gathered arrays must have one shape.
    own = np.frombuffer(hashlib.sha256(digest.encode()).digest(), np.uint8)
    gathered = np.asarray(multihost_utils.process_allgather(own))  # u8[processes, 32]
    differing = np.flatnonzero((gathered != gathered[0]).any(axis=1))
    if differing.size:
        raise ConfigError(f"host {differing[0]} has other {what} than host 0")
