"""Several processes that train one model together: joining, waiting, and comparing."""

import hashlib
import re
import socket
import sys
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from kamcl_jax.errors import ConfigError

_SECONDS_TO_JOIN = 300


def initialise(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    timeout_seconds: int = _SECONDS_TO_JOIN,
) -> None:
    """Joins the processes of one training; to be called before anything asks JAX for its devices.

    Args:
      coordinator: `HOST:PORT` of process 0, which listens there. None, with the other two: all
        three are taken from the cluster (Slurm, Open MPI, GKE, a TPU pod).
      num_processes: that train together.
      process_id: of this one, from 0.
      timeout_seconds: for the others to come.

    Raises:
      ConfigError: the flags do not fit each other, no cluster is found, or the coordinator's
        address cannot be used or reached.
    """
    given = (coordinator, num_processes, process_id)
    if coordinator is None or num_processes is None or process_id is None:
        if any(value is not None for value in given):
            raise ConfigError(
                "--coordinator, --num_processes and --process_id go together: "
                "give all three, or none on a cluster that tells them"
            )
    else:
        _check_place(num_processes, process_id)
        # JAX ends the process without an exception where an address cannot be used.
        _check_address(coordinator, process_id, timeout_seconds)
        print(
            f"host {process_id} joins {num_processes} processes at {coordinator} "
            f"(at most {timeout_seconds} seconds)",
            file=sys.stderr,
            flush=True,
        )
    try:
        jax.distributed.initialize(*given, initialization_timeout=timeout_seconds)
    # Each cluster's detection raises what reading its environment leads to.
    except (RuntimeError, ValueError, LookupError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        if coordinator is None:
            raise ConfigError(
                "no cluster (Slurm, Open MPI, GKE, TPU) tells which processes train together: "
                f"give --coordinator, --num_processes and --process_id ({reason})"
            ) from error
        raise ConfigError(f"the processes at {coordinator} cannot be joined: {reason}") from error


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
    """Returns the first process on which something failed, None if none; all must call this."""
    if jax.process_count() == 1:
        return 0 if failed else None
    flags = np.asarray(multihost_utils.process_allgather(np.asarray(failed)))
    return int(np.argmax(flags)) if flags.any() else None


def barrier(name: str, timeout_seconds: int) -> None:
    """Waits until all processes have come here; devices take no part. One process goes on at once.

    Args:
      name: of the place, the same in all processes.
      timeout_seconds: as long as the slowest may take longer than the fastest.

    Raises:
      ConfigError: a process did not come in time; it is named.
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
    """Checks that all processes hold the same; all of them call this and raise the same.

    Args:
      what: is compared, for the sentence.
      digest: of what this process holds, as `hashlib` makes it in hexadecimal digits.

    Raises:
      ConfigError: a process's digest differs from process 0's.
    """
    if jax.process_count() == 1:
        return
    # Digests of all lengths become 32 bytes: the gathered arrays must have one shape.
    own = np.frombuffer(hashlib.sha256(digest.encode()).digest(), np.uint8)
    gathered = np.asarray(multihost_utils.process_allgather(own))  # u8[processes, 32]
    differing = np.flatnonzero((gathered != gathered[0]).any(axis=1))
    if differing.size:
        raise ConfigError(f"host {differing[0]} has other {what} than host 0")


def _check_place(num_processes: int, process_id: int) -> None:
    if num_processes < 1:
        raise ConfigError(f"--num_processes={num_processes} must be at least 1")
    if not 0 <= process_id < num_processes:
        raise ConfigError(
            f"--process_id={process_id} must be 0 or more and below --num_processes={num_processes}"
        )


def _check_address(coordinator: str, process_id: int, timeout_seconds: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"--coordinator={coordinator} must be HOST:PORT, as 10.0.0.1:1234")
    if process_id == 0:
        _check_free(coordinator, int(port))
    else:
        _wait_for(coordinator, host.strip("[]"), int(port), timeout_seconds)


def _check_free(coordinator: str, port: int) -> None:
    # As JAX's service does: on all addresses, IPv4's too where there is IPv6.
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        socket.create_server(
            ("", port), family=family, dualstack_ipv6=family == socket.AF_INET6
        ).close()
    except OSError as error:
        raise ConfigError(
            f"process 0 cannot listen at --coordinator={coordinator}: {error.strerror}"
        ) from error


def _wait_for(coordinator: str, host: str, port: int, timeout_seconds: int) -> None:
    """Waits until process 0 listens."""
    until = time.monotonic() + timeout_seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise ConfigError(
                    f"nothing answered at --coordinator={coordinator} within {timeout_seconds} "
                    f"seconds: {error.strerror or error}"
                ) from error
        time.sleep(0.2)
