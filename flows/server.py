"""A Prefect server of our own for one build, where the person has none.

It starts while the build's libraries are imported, keeps its history in
Prefect's own database, and goes when this process goes, even by kill -9.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError, URLError

from tasks import OWN_SERVER
from vlmdata.errors import ConfigError, VlmdataError

_PATIENCE_S = 120
_LAST_WORDS_S = 5
_START = """
import ctypes, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
import uvicorn
app, port = "prefect.server.api.server:create_app", int(sys.argv[1])
uvicorn.run(app, factory=True, host="127.0.0.1", port=port, log_level="error")
"""


@contextmanager
def prefect_server() -> Iterator[None]:
    """Set PREFECT_API_URL to a server: the person's own if one is set, else a new one on loopback."""
    if theirs := os.environ.get("PREFECT_API_URL") or _server_of_profile():
        _require(theirs)
        yield
        return
    server, url = _start()
    os.environ.update({"PREFECT_API_URL": f"{url}/api", OWN_SERVER: "1"})
    try:
        _warm_up()
        _wait(server, url)
        yield
    finally:
        _say_the_last_words()
        for name in ("PREFECT_API_URL", OWN_SERVER):
            del os.environ[name]
        server.terminate()
        server.wait()


def _require(url: str) -> None:
    """Something answers there, be it that it wants to know who asks.

    Raises:
        ConfigError: nothing does.
    """
    try:
        urllib.request.urlopen(f"{url}/health", timeout=10).close()
    except HTTPError:
        return
    except (URLError, OSError, ValueError) as error:
        raise ConfigError(
            f"PREFECT_API_URL = {url!r}: no Prefect server answers there; start it, "
            "or unset it (in the environment or in Prefect's profile), and one is started for the build"
        ) from error


def _server_of_profile() -> str | None:
    """The server that Prefect's active profile names, found without importing Prefect (2 s).

    Raises:
        ConfigError: the profiles cannot be read, as Prefect could not read them either.
    """
    home = os.environ.get("PREFECT_HOME") or os.path.expanduser("~/.prefect")
    path = os.environ.get("PREFECT_PROFILES_PATH") or os.path.join(home, "profiles.toml")
    try:
        with open(path, "rb") as file:
            told = tomllib.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({' '.join(str(error).split())}); correct it") from error
    return _api_url(told, os.environ.get("PREFECT_PROFILE") or told.get("active"))


def _api_url(told: dict[str, Any], active: Any) -> str | None:
    """PREFECT_API_URL of one profile, if the file has that profile and it names a server."""
    profiles = told.get("profiles")
    profile = profiles.get(active) if isinstance(profiles, dict) and isinstance(active, str) else None
    url = profile.get("PREFECT_API_URL") if isinstance(profile, dict) else None
    return url if isinstance(url, str) and url.strip() else None


def _start() -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_UI_ENABLED": "false"}
    # Kept in memory, the slots of a run that was killed with its server would never come back.
    quiet["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] = "prefect.server.concurrency.lease_storage.filesystem"
    server = subprocess.Popen(
        # -P: a file of the working folder that is called like a library is not that library.
        [sys.executable, "-P", "-c", _START, str(port)],
        env={**os.environ, **quiet},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches the flow first, which still has something to say to it
    )
    return server, f"http://127.0.0.1:{port}"


def _warm_up() -> None:
    """Import what the flow needs anyway, while the server starts."""
    import flows.build_dataset
    from expectations.gate import great_expectations

    del flows
    great_expectations()


def _say_the_last_words() -> None:
    """Let Prefect's threads send what they hold, or they seek a server that is gone when Python ends."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=_LAST_WORDS_S)


def _wait(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/api/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.1)
    ended = server.poll()
    how = f"within {_PATIENCE_S} s" if ended is None else f"and ended with {ended}"
    raise VlmdataError(
        f"Prefect's server did not start {how}; run `prefect server start` to see why, "
        "or set PREFECT_API_URL to a server that runs"
    )
