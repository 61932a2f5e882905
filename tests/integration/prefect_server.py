"""A real Prefect server for the session, with its database in a temporary folder; and a real worker."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.integration.processes import environment, free_port, started, wait_until

POOL = "vlmdata"


@dataclass(frozen=True)
class PrefectServer:
    """Where the server is, and the home that its clients share."""

    api: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a client reads."""
        return {"PREFECT_API_URL": self.api, "PREFECT_HOME": str(self.home)}

    def answers(self) -> bool:
        """Whether it is ready."""
        try:
            return httpx.get(f"{self.api}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def used_here(api: str) -> Iterator[None]:
    """Flows of this process use the server at `api`, and no heartbeat: each flow waits a second for its end."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_API_URL: api, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@contextmanager
def prefect_server(home: Path) -> Iterator[PrefectServer]:
    """The server on loopback and a free port, with SQLite below `home`."""
    port = free_port()
    server = PrefectServer(f"http://127.0.0.1:{port}/api", home)
    command = [*prefect("server", "start"), "--host", "127.0.0.1", "--port", str(port)]
    env = environment(PREFECT_HOME=str(home), PREFECT_SERVER_UI_ENABLED="false")
    env.pop("PREFECT_API_URL", None)
    with (home / "server.log").open("wb") as log, started(command, env, log.fileno(), log.fileno(), cwd=home):
        wait_until(server.answers, f"Prefect's server answers; see {home / 'server.log'}")
        yield server


@contextmanager
def worker(server: PrefectServer, env: Mapping[str, str]) -> Iterator[None]:
    """A process worker; its runs see `env`."""
    command = [*prefect("worker", "start"), "--pool", POOL, "--type", "process", "--limit", "1"]
    polled = {**env, **server.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    file = server.home / "worker.log"
    with file.open("wb") as log, started(command, polled, log.fileno(), log.fileno(), cwd=server.home):
        yield


def prefect(*arguments: str) -> list[str]:
    """Prefect's command line, of this interpreter."""
    return [sys.executable, "-m", "prefect", *arguments]
