"""Names of hosts: looked up once, and never a way to an address that is not open."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from uuid import uuid4

import pytest
from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver

from tests.integration.test_downloads import fetched
from tests.servers.hostile_web import HostileWeb, hostile_web
from vlmdata.ingest.web import asking

pytestmark = pytest.mark.integration

AGAIN = 30
NAME = "pictures.example"


@pytest.fixture
def inside() -> Iterator[HostileWeb]:
    """Where `localhost` leads: closed, unless a test opens it."""
    with hostile_web("127.0.0.1") as server:
        yield server


@pytest.fixture
def outside(inside: HostileWeb) -> Iterator[HostileWeb]:
    """At the same port of an address that is open: it stands for a public one, since no test leaves this machine."""
    with hostile_web("127.0.0.4", inside.port) as server:
        yield server


@pytest.fixture
def stranger() -> str:
    """Who asks is somebody new, who has looked nothing up before."""
    return f"look-ups/{uuid4().hex}"


def test_a_name_is_looked_up_once_however_many_connections_go_there(
    inside: HostileWeb, monkeypatch: pytest.MonkeyPatch, stranger: str
) -> None:
    looked_up, really = [], ThreadedResolver.resolve

    async def counted(
        self: ThreadedResolver, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        looked_up.append(host)
        return await really(self, host, port, family)

    monkeypatch.setattr(ThreadedResolver, "resolve", counted)
    # Each of these answers ends its connection.
    urls = [f"http://localhost:{inside.port}/no-length?{number}" for number in range(AGAIN)]
    rows = fetched(inside, *urls, per_host=4, user_agent=stranger)
    assert [row["outcome"] for row in rows] == ["kept"] * AGAIN
    assert inside.connections >= AGAIN and looked_up == ["localhost"]


def answers(monkeypatch: pytest.MonkeyPatch, *each: Sequence[str]) -> list[str]:
    """A name server that gives these addresses, one list after the other, the last for ever; who was asked for."""
    looked_up: list[str] = []

    async def resolve(
        self: ThreadedResolver, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = each[min(len(looked_up), len(each) - 1)]
        looked_up.append(host)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in addresses
        ]

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    return looked_up


def test_a_name_that_leads_inside_when_it_is_looked_up_again_is_not_looked_up_again(
    inside: HostileWeb, outside: HostileWeb, monkeypatch: pytest.MonkeyPatch, stranger: str
) -> None:
    looked_up = answers(monkeypatch, [outside.host], [inside.host])
    url = f"http://{NAME}:{outside.port}/no-length"
    ways = [url, outside.url(f"/to?url={url}")] * 5
    rows = fetched(outside, *ways, per_host=1, user_agent=stranger)
    assert [row["outcome"] for row in rows] == ["kept"] * len(ways)
    assert looked_up == [NAME] and not inside.connections


def test_a_name_that_leads_inside_by_now_is_refused(
    inside: HostileWeb, outside: HostileWeb, monkeypatch: pytest.MonkeyPatch, stranger: str
) -> None:
    """As after the minutes for which an answer is remembered."""
    monkeypatch.setattr(asking, "_DNS_TTL_S", 0)
    looked_up = answers(monkeypatch, [outside.host], [inside.host])
    urls = [f"http://{NAME}:{outside.port}/no-length?{number}" for number in range(3)]
    rows = fetched(outside, *urls, per_host=1, user_agent=stranger)
    assert [row["code"] for row in rows] == [None, "forbidden_address", "forbidden_address"]
    assert len(looked_up) == 3 and outside.connections == 1 and not inside.connections


def test_of_a_names_addresses_those_inside_are_passed_over(
    inside: HostileWeb, outside: HostileWeb, monkeypatch: pytest.MonkeyPatch, stranger: str
) -> None:
    answers(monkeypatch, [inside.host, outside.host])
    urls = [f"http://{NAME}:{outside.port}/no-length?{number}" for number in range(4)]
    rows = fetched(outside, *urls, user_agent=stranger)
    assert [row["outcome"] for row in rows] == ["kept"] * 4
    assert outside.connections >= 4 and not inside.connections
