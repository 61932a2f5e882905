"""Limits over processes: a real Prefect server, a real caption server, processes that end and one that is restarted."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic, time
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.job import Job
from tasks.pace import PrefectLimits, Slots, limits_of, prepare
from tests.integration.prefect_server import PrefectServer, prefect_server
from tests.integration.processes import environment, started
from tests.servers.faults import FaultServer, fault_server, picture
from vlmdata.captioning.pace import FRESH_S, Pace
from vlmdata.config_reading import parse_config
from vlmdata.errors import VlmdataError

pytestmark = pytest.mark.integration

PER_MINUTE = 180
CONCURRENCY = 4
RUN_S = 7.0
LATENCY_S = 0.9


@pytest.fixture
def here(server: PrefectServer) -> Iterator[None]:
    """This process uses the session's server, whenever it imported Prefect."""
    with temporary_settings({PREFECT_API_URL: server.api}):
        yield


@pytest.fixture
def captioner() -> Iterator[FaultServer]:
    with fault_server() as server:
        server.latency_s = LATENCY_S
        yield server


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def job(dataset: str, **caption: Any) -> Job:
    raw = {"dataset": dataset, "store": "/store", "source": {"kind": "folder", "path": "/p"}, "caption": caption}
    return Job(parse_config(raw), 1)


@asynccontextmanager
async def client_of(api: str) -> AsyncIterator[PrefectClient]:
    with temporary_settings({PREFECT_API_URL: api}):
        async with get_client() as client:
            yield client


async def active(client: PrefectClient, name: str) -> int:
    return (await client.read_global_concurrency_limit_by_name(name)).active_slots


async def until(true: Callable[[], bool], patience_s: float = 30.0) -> None:
    async with asyncio.timeout(patience_s):
        while not true():
            await asyncio.sleep(0.05)


async def ask_for_a_while(job: Job, url: str) -> list[float]:
    """One process's work: as many requests as it may start in `RUN_S`; when they started, by the wall clock."""
    limits = prepare(job)
    pace = Pace(job.config.caption, limits)
    content = [{"image_url": {"url": "data:image/png;base64," + b64encode(picture(1)).decode()}}]
    body = {"messages": [{"role": "user", "content": content}]}
    starts: list[float] = []

    async def ask(http: httpx.AsyncClient) -> None:
        async with pace.slot() as turn:
            if turn is None:
                return
            starts.append(time())
            (await http.post(f"{url}/chat/completions", json=body)).raise_for_status()
            turn.went_well()

    async with httpx.AsyncClient(timeout=60) as http, pace.shift(), asyncio.TaskGroup() as group:
        for _ in range(PER_MINUTE):
            group.create_task(ask(http))
        await asyncio.sleep(RUN_S)
        pace.halt()
    return starts


@pytest.mark.parametrize(
    ("caption", "tight"),
    [({"requests_per_minute": PER_MINUTE, "concurrency": 64}, "rate"), ({"concurrency": CONCURRENCY}, "slots")],
    ids=["requests_per_minute", "concurrency"],
)
def test_two_processes_keep_one_limit(
    server: PrefectServer, captioner: FaultServer, caption: dict[str, int], tight: str
) -> None:
    command = [sys.executable, "-m", "tests.integration.test_pace", json.dumps([tight, caption, captioner.base_url])]
    env = environment(**server.environment)
    with ExitStack() as stack:
        pair = [stack.enter_context(started(command, env, stdout=subprocess.PIPE)) for _ in range(2)]
        each = [json.loads(process.communicate(timeout=120)[0]) for process in pair]
    starts = sorted(each[0] + each[1])
    assert all(each)
    assert captioner.most_at_once <= caption["concurrency"]
    if tight == "slots":
        assert len(starts) > RUN_S / LATENCY_S * CONCURRENCY / 3
        assert captioner.most_at_once == CONCURRENCY
        return
    assert len(starts) > RUN_S * PER_MINUTE / 60 / 2
    for first in starts:
        for seconds in (1, 3, 6):
            within = sum(first <= start < first + seconds for start in starts)
            assert within <= PER_MINUTE / 30 + PER_MINUTE / 60 * (seconds + FRESH_S)


@on_a_loop
async def test_slots_are_shared_fairly_and_what_is_in_use_stays(here: None) -> None:
    limits = prepare(job("fair", concurrency=8))
    assert limits is not None
    allotted = {"first": 0, "second": 0}
    in_use = 8

    def hold(name: str, in_flight: Callable[[], int]) -> asyncio.Task[None]:
        async def belong() -> None:
            async with limits.joined() as member:
                await member.hold(lambda slots: allotted.update({name: slots}), in_flight)

        return asyncio.create_task(belong())

    first = hold("first", lambda: in_use)
    await until(lambda: allotted["first"] == 8)
    second = hold("second", lambda: 0)
    await until(lambda: allotted["first"] == 4)
    await asyncio.sleep(2)
    assert allotted == {"first": 4, "second": 0}
    in_use = 4
    await until(lambda: allotted == {"first": 4, "second": 4})
    first.cancel()
    await until(lambda: allotted["second"] == 8)
    second.cancel()
    await asyncio.wait({first, second})
    async with get_client() as client:
        assert [await active(client, f"vlmdata-fair-{what}") for what in ("captions", "processes")] == [0, 0]


@on_a_loop
async def test_a_new_run_brings_its_own_figures(here: None) -> None:
    for per_minute, concurrency in ((600, 4), (60, 9)):
        run = job("figures", requests_per_minute=per_minute, tokens_per_minute=9_000, concurrency=concurrency)
        assert prepare(run) == PrefectLimits("figures", True, True)
        async with get_client() as client:
            for limit in limits_of("figures", run.config.caption):
                there = await client.read_global_concurrency_limit_by_name(limit.name)
                assert (there.limit, there.slot_decay_per_second) == (limit.slots, pytest.approx(limit.decay or 0.0))


@on_a_loop
async def test_more_than_a_burst_is_taken_in_parts_and_a_lost_limit_is_named(here: None) -> None:
    limits = prepare(job("parts", tokens_per_minute=6_000))
    assert limits is not None
    async with limits.joined() as member, get_client() as client:
        began = monotonic()
        await member.take(0, 900)
        assert monotonic() - began > 2
        await client.delete_global_concurrency_limit_by_name("vlmdata-parts-tokens")
        with pytest.raises(VlmdataError, match="'vlmdata-parts-tokens'"):
            await member.take(0, 1)


@on_a_loop
async def test_slots_that_a_restarted_server_forgot_are_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "vlmdata-restart-captions"
    for variable in ("PREFECT_API_URL", "PREFECT_HOME"):
        monkeypatch.delenv(variable, raising=False)
    with prefect_server(tmp_path) as before:
        async with client_of(before.api) as client:
            await client.upsert_global_concurrency_limit_by_name(name, 8)
            slots = Slots(client, name)
            await slots.grow(6)
            assert (slots.held, await active(client, name)) == (6, 6)
    with prefect_server(tmp_path) as after:
        async with client_of(after.api) as client:
            assert await active(client, name) == 6
            slots._client = client
            for lease in slots._leases:
                lease.renewed -= 30
            await slots.renew()
            assert (slots.held, await active(client, name)) == (0, 0)
            await slots.grow(8)
            assert slots.held == 8


def main() -> None:
    dataset, caption, url = json.loads(sys.argv[1])
    starts = asyncio.run(ask_for_a_while(job(f"pace-{dataset}", **caption), url))
    os.write(1, json.dumps(starts).encode())


if __name__ == "__main__":
    main()
