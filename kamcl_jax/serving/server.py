"""`--mode=serve`: the search page, until Ctrl-C."""

import errno
import logging
import socket
import sys
from pathlib import Path

import waitress
from flask import Flask

from input_pipeline.errors import DataError
from kamcl_jax.errors import ConfigError
from kamcl_jax.search.index import open_index
from kamcl_jax.serving import guards
from kamcl_jax.serving.app import make_app
from kamcl_jax.serving.limits import Limits

THREADS = 8
MAX_CONNECTIONS = 512
"""More visitors than that wait until another has ended."""


def serve(folder: Path, host: str, port: int) -> None:
    """Serves the page for the index in a folder; port 0 is a free one.

    Unless the host, a name or an address, is of this machine only, everyone who reaches it sees the
    images.
    """
    index = open_index(folder, with_model=True)
    if not index.files:
        raise DataError(f"{folder} is an index without images.")
    # This comes before the model is compiled, so that a port in use is told at once.
    with listen(host, port) as listener:
        # The address is looked at, too: 127.1 is a name of 127.0.0.1.
        is_private = guards.is_loopback(host) or guards.is_loopback(listener.getsockname()[0])
        limits = Limits()
        print(f"reading the model of {folder}", flush=True)
        app = make_app(index, limits, only_this_machine=is_private)
        if not is_private:
            print(f"note: whoever reaches {host} can search and see these images", file=sys.stderr)
        print(f"{len(index.files)} images at {url(listener)} (Ctrl-C ends this)", flush=True)
        run(app, listener, limits)
        print("\nended")


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens at a host name or address; port 0 is a free one."""
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=MAX_CONNECTIONS)
    except (OSError, UnicodeError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (")[0]
        if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES):
            reason += "; --port=0 takes a free one"
        raise ConfigError(f"cannot serve at {host}, port {port}: {reason}") from error


def url(listener: socket.socket) -> str:
    """Returns the address of the page that is served over a socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: Flask, listener: socket.socket, limits: Limits) -> None:
    """Answers requests until the process is interrupted."""
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # requests may have to wait
    waitress.serve(
        app,
        sockets=[listener],
        threads=THREADS,
        connection_limit=MAX_CONNECTIONS,
        # Twice as much as allowed: the page says better that an upload is too large.
        max_request_body_size=2 * limits.upload_bytes,
        asyncore_use_poll=True,
        ident=None,
        _quiet=True,
    )
