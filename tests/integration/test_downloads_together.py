"""Shards that are downloaded at once: the limits are those of them all, as the servers count."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.servers.hostile_web import HostileWeb, hostile_web
from vlmdata.checkpoint import Dataset
from vlmdata.config import NetworkConfig
from vlmdata.config_reading import parse_config
from vlmdata.ingest.listing import list_source
from vlmdata.ingest.shards import ingest_shard
from vlmdata.ingest.web.fetching import fetch_rows
from vlmdata.layout import Step
from vlmdata.opt_out import OptOut
from vlmdata.schema import LISTING, filled

pytestmark = pytest.mark.integration

SHARDS = 4
SLOW_MS = 60
HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
NETWORK: dict[str, Any] = {
    "allow_networks": tuple(f"{host}/32" for host in HOSTS),
    "obey_robots": False,
    "obey_headers": False,
    "retries": 0,
}


@pytest.fixture
def webs() -> Iterator[Sequence[HostileWeb]]:
    """Several hosts."""
    with ExitStack() as stack:
        yield [stack.enter_context(hostile_web(host)) for host in HOSTS]


def at_once(shards: int, work: Callable[[int], Any]) -> list[Any]:
    """The work of each shard, on a thread of its own; none begins before all are there."""
    here = threading.Barrier(shards)

    def one(shard: int) -> Any:
        here.wait()
        return work(shard)

    with ThreadPoolExecutor(shards) as pool:
        return list(pool.map(one, range(shards)))


def outcomes(config: NetworkConfig, urls: Sequence[str]) -> set[str]:
    """How the pictures of one shard ended."""
    rows = filled(LISTING, len(urls), key=pa.array(urls), url=pa.array(urls), missing=False)
    readings = fetch_rows(config, OptOut.read(None), rows)
    return {outcome for each in readings if each.fetches for outcome in each.fetches["outcome"].to_pylist()}


def slow(web: HostileWeb, shard: int, number: int) -> str:
    """An address that no other shard asks for."""
    return web.url(f"/slow/{SLOW_MS}/{shard * 1000 + number}.jpg")


def most_under_way(webs: Sequence[HostileWeb]) -> int:
    """Requests that servers were surely answering at one moment, over all of them.

    Of each the time counts that its server slept before it answered: when exactly one
    server was done, and another one began, clocks of two threads cannot tell.
    """
    starts = [seen.start for web in webs for seen in web.requests]
    moments = sorted([(at, 1) for at in starts] + [(at + SLOW_MS / 1000, -1) for at in starts])
    now = most = 0
    for _, step in moments:
        now += step
        most = max(most, now)
    return most


def test_at_one_host_no_more_are_under_way_than_one_shard_may_have(webs: Sequence[HostileWeb]) -> None:
    config = NetworkConfig(**NETWORK, per_host=3)
    told = at_once(SHARDS, lambda shard: outcomes(config, [slow(webs[0], shard, number) for number in range(12)]))
    assert told == [{"kept"}] * SHARDS and len(webs[0].requests) == 12 * SHARDS
    assert webs[0].most_at_once == 3 and webs[0].connections <= 3


def test_over_all_hosts_no_more_are_under_way_than_one_shard_may_have(webs: Sequence[HostileWeb]) -> None:
    config = NetworkConfig(**NETWORK, concurrency=4)
    told = at_once(
        SHARDS, lambda shard: outcomes(config, [slow(web, shard, number) for number in range(6) for web in webs])
    )
    assert told == [{"kept"}] * SHARDS and [len(web.requests) for web in webs] == [6 * SHARDS] * len(webs)
    assert most_under_way(webs) <= 4 and all(web.connections for web in webs)


def test_requests_of_several_shards_at_one_host_keep_their_distance(webs: Sequence[HostileWeb]) -> None:
    """Only that too little time passed would be told: the first request may have been seen late."""
    config, each = NetworkConfig(**NETWORK, host_delay_s=0.1), 4
    at_once(SHARDS, lambda shard: outcomes(config, [webs[0].url(f"/picture/{shard}{n}.jpg") for n in range(each)]))
    starts = sorted(seen.start for seen in webs[0].requests)
    assert len(starts) == SHARDS * each
    # 1.5 s in all; shards that know nothing of each other would take 0.3 s.
    assert starts[-1] - starts[0] >= 0.9


def test_shards_of_a_list_share_the_limit_of_a_host(webs: Sequence[HostileWeb], tmp_path: Path) -> None:
    """As a build takes them in: several shards at once, each on a thread."""
    rows = [{"url": slow(webs[0], 0, number), "caption": str(number)} for number in range(8 * SHARDS)]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = parse_config(
        {
            "dataset": "web",
            "store": str(tmp_path / "store"),
            "source": {"kind": "urls", "path": str(tmp_path / "list.jsonl")},
            "shard_size": 8,
            "network": {**NETWORK, "per_host": 2},
        }
    )
    dataset = Dataset(config.store, config.dataset)
    shards = list_source(dataset, config)
    assert len(shards) == SHARDS
    done = at_once(SHARDS, lambda number: ingest_shard(dataset, shards[number], config))
    assert [dataset.manifest(shard, Step.RAW).samples.kept for shard in done] == [8] * SHARDS
    assert webs[0].most_at_once == 2 and webs[0].connections <= 2
