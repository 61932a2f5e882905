"""The journal over real HTTP: budgets, kills, two runs at once, the same picture in two places."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.captioning import HASTY, PRICE, USED, config, make_shard, outcomes
from tests.servers.faults import FaultServer, caption, fault_server
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.journal.records import NANO, Ask, decode
from vlmdata.captioning.plan import plan_captions
from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Dataset
from vlmdata.config import CaptionConfig
from vlmdata.layout import Step, journal

pytestmark = pytest.mark.integration


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server() as running:
        yield running


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(str(tmp_path / "store"), "faults")


def account(dataset: Dataset) -> Any:
    return Log(dataset.store, dataset.name).book.account


def priced(server: FaultServer, **changes: object) -> CaptionConfig:
    return config(server, prices={"m": PRICE}, **changes)


def test_the_budget_stops_before_the_request_that_could_pass_it_and_goes_on_with_more(
    server: FaultServer, dataset: Dataset
) -> None:
    before = make_shard(dataset, range(30))
    worst = plan_captions(dataset, [before], priced(server)).cost_at_worst or 0.0
    tight = priced(server, max_cost=worst / 30 + 10 * USED)
    first = caption_shard(dataset, before, tight, HASTY)
    rows = dataset.read(first, Step.CAPTIONED, "attempts").to_pylist()
    captioned = [row for row in rows if row["outcome"] == "captioned"]
    assert len(captioned) == 11, "what is settled for less makes room for more"
    assert {row["failure"] for row in rows} == {None, "budget"}
    assert account(dataset).spent <= tight.max_cost * NANO
    assert dataset.manifest(first, Step.CAPTIONED).open == 30 - len(captioned)

    done = caption_shard(dataset, before, priced(server, max_cost=worst), HASTY)
    assert dataset.manifest(done, Step.CAPTIONED).samples.kept == 30
    assert server.requests == dict.fromkeys(range(30), 1)
    assert account(dataset).settled == pytest.approx(30 * USED * NANO) and account(dataset).reserved == 0


def test_a_bound_on_requests_is_exact(server: FaultServer, dataset: Dataset) -> None:
    before = make_shard(dataset, range(12))
    shard = caption_shard(dataset, before, config(server, max_requests=5), HASTY)
    assert server.requests.total() == 5 == account(dataset).requests
    assert dataset.manifest(shard, Step.CAPTIONED).reasons == {"caption_budget": 7}


def test_an_answer_that_says_no_usage_costs_what_was_set_aside(server: FaultServer, dataset: Dataset) -> None:
    server.scripts = {0: ["no_usage"], 1: ["500", "ok"]}
    caption_shard(dataset, make_shard(dataset, range(2)), priced(server), HASTY)
    total = account(dataset)
    assert total.reserved == 0 and total.requests == 3
    worst = plan_captions(dataset, [make_shard(dataset, range(9, 10))], priced(server)).cost_at_worst or 0.0
    assert total.settled == pytest.approx((worst + USED) * NANO)


def test_the_same_picture_in_two_shards_is_asked_about_once(server: FaultServer, dataset: Dataset) -> None:
    server.latency_s = 0.2
    shards = [make_shard(dataset, range(8)), make_shard(dataset, range(4, 12))]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda shard: caption_shard(dataset, shard, config(server), HASTY), shards))
    assert server.requests == dict.fromkeys(range(12), 1)
    assert [dataset.manifest(one, Step.CAPTIONED).samples.kept for one in done] == [8, 8]


def test_the_plan_says_what_is_paid_for_and_asks_nothing(server: FaultServer, dataset: Dataset) -> None:
    caption_shard(dataset, make_shard(dataset, range(5)), priced(server), HASTY)
    sent = server.requests.total()
    plan = plan_captions(dataset, [make_shard(dataset, range(20))], priced(server, max_requests=18))
    assert (plan.pictures, plan.answered, plan.requests, plan.paid_requests) == (20, 5, 15, 5)
    assert plan.paid_cost == pytest.approx(5 * USED) and not plan.fits
    assert plan.cost_at_worst and plan.cost and plan.cost_at_worst > plan.cost > 0
    assert server.requests.total() == sent


ASK = """
import json, sys
from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import CaptionConfig
told = json.loads(sys.argv[1])
shard = caption_shard(Dataset(*told["dataset"]), Shard(**told["shard"]), CaptionConfig(**told["config"]))
print(json.dumps(shard.manifests))
"""


def run_apart(dataset: Dataset, shard: Any, settings: CaptionConfig) -> subprocess.Popen[str]:
    told = {
        "dataset": [dataset.store_url, dataset.name],
        "shard": {"name": shard.name, "rows": shard.rows, "manifests": dict(shard.manifests)},
        "config": settings.model_dump(mode="json"),
    }
    return subprocess.Popen([sys.executable, "-c", ASK, json.dumps(told)], stdout=subprocess.PIPE, text=True)


def test_a_killed_run_repeats_at_most_what_was_in_flight(server: FaultServer, dataset: Dataset) -> None:
    server.latency_s = 0.05
    before = make_shard(dataset, range(120))
    settings = priced(server, concurrency=6)
    for kill_at in (20, 60):
        process = run_apart(dataset, before, settings)
        while server.requests.total() < kill_at:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(0.2)
    done = caption_shard(dataset, before, settings, HASTY)
    assert dataset.manifest(done, Step.CAPTIONED).samples.kept == 120
    repeated = server.requests.total() - 120
    assert repeated <= 2 * 6 and max(server.requests.values()) <= 3
    assert account(dataset).requests >= server.requests.total(), "written down before it is sent"
    assert account(dataset).spent >= server.requests.total() * USED * NANO, "what a crash left open stays spent"


def test_two_runs_at_once_share_one_account_and_ask_nothing_twice(server: FaultServer, dataset: Dataset) -> None:
    server.latency_s = 0.02
    before = make_shard(dataset, range(60))
    settings = priced(server, concurrency=4)
    runs = [run_apart(dataset, before, settings) for _ in range(2)]
    said = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert server.requests == dict.fromkeys(range(60), 1)
    manifests = [json.loads(text) for text in said]
    assert manifests[0]["02_captioned"] == manifests[1]["02_captioned"]


def test_a_large_journal_is_compacted_and_still_answers(
    server: FaultServer, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmdata.captioning.journal.log.SEGMENTS_BETWEEN_SNAPSHOTS", 5)
    caption_shard(dataset, make_shard(dataset, range(100)), config(server, concurrency=2), HASTY)
    assert len(dataset.store.list("faults/02_captioned/journal/snapshots")) > 2
    again = caption_shard(dataset, make_shard(dataset, range(100), license_="CC-BY"), config(server), HASTY)
    assert server.requests.total() == 100
    texts = dataset.read(again, Step.CAPTIONED, "captions")["text"].to_pylist()
    assert texts == [caption(number) for number in range(100)]
    assert {outcome for outcome, *_ in outcomes(dataset, again).values()} == {"captioned"}


def test_segments_of_the_journal_are_small_however_much_is_asked(server: FaultServer, dataset: Dataset) -> None:
    """A segment has a record at most of each picture that is under way: two for each that may be asked at once."""
    server.scripts = {number: ["500"] for number in range(0, 216, 3)}
    before = make_shard(dataset, range(300), sizes=dict.fromkeys(range(216, 300), (64, 65)))
    shard = caption_shard(dataset, before, config(server, concurrency=4), HASTY)
    assert dataset.manifest(shard, Step.CAPTIONED).samples.kept == 300
    log = f"{journal(dataset.name)}/log"
    segments = [dataset.store.get(path) for path in dataset.store.list(log)]
    asked = [record for data in segments for record in decode(data, log) if isinstance(record, Ask)]
    assert len(asked) == server.requests.total() >= 300, "all of it was read"
    assert max(len(decode(data, log)) for data in segments) <= 2 * 4
    assert max(len(data) for data in segments) <= 2 * 4 * 1_000
