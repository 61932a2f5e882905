"""Real parts, one of each a session: a Prefect server, an S3 server, a sample, and an undisturbed build of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.prefect_server import PrefectServer, prefect_server
from tests.integration.sample import build_here, config_of, export_of, make_sample
from tests.integration.seaweed import S3, seaweed


@dataclass(frozen=True)
class Built:
    """A build and what came of it."""

    config: dict[str, Any]
    told: dict[str, Any]
    files: dict[str, bytes]


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> None:
    """Started in the background of a script, a process ignores Ctrl-C: some tests would wait for it for ever."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """The session's Prefect server; this process and its children use it."""
    with pytest.MonkeyPatch.context() as patch, prefect_server(tmp_path_factory.mktemp("prefect")) as running:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running
        _send_what_waits()


def _send_what_waits() -> None:
    """Prefect's own threads would seek a server that is gone for more than a minute."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for service in (EventsWorker, APILogWorker):
        service.drain_all(timeout=10)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """The session's S3 server; this process and its children have its keys."""
    with pytest.MonkeyPatch.context() as patch, seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pictures/` and `captions.jsonl`."""
    return make_sample(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def undisturbed(server: PrefectServer, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sample built once, in one piece, on threads, into a folder: what every other way is held against."""
    config = config_of(sample, str(tmp_path_factory.mktemp("undisturbed") / "store"))
    told = build_here(config, server.api)
    return Built(config, told, export_of(config))
