"""Runs an ASGI app with uvicorn: in the foreground, or in a thread on a free loopback port."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vlmdata.errors import ConfigError, VlmdataError

LOOPBACK = "127.0.0.1"
_START_WITHIN_S = 30.0


def serve_forever(app: Any, host: str, port: int, command: str = "caption-server") -> None:
    """Serve until interrupted; errors name the command.

    Raises:
        ConfigError: the port is taken, or the host is not this machine's.
    """
    with _bound(host, port, command) as listener:
        _server(app, "info").run(sockets=[listener])


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The app in a thread, ready to answer; yields `http://127.0.0.1:<port>` and stops it at the end."""
    with _bound(LOOPBACK, 0) as listener:
        server = _server(app, "critical")
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            _await_start(server, thread)
            yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def _server(app: Any, log_level: str) -> Any:
    import uvicorn

    # Connections that a client keeps open must not hold up the end.
    config = uvicorn.Config(app, log_level=log_level, lifespan="on", timeout_graceful_shutdown=1)
    return uvicorn.Server(config)


def _bound(host: str, port: int, command: str = "caption-server") -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as error:
        raise ConfigError(f"{command}: {host}:{port} cannot be used ({error.strerror or error})") from error


def _await_start(server: Any, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_WITHIN_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise VlmdataError("caption-server: did not start")
        time.sleep(0.005)
