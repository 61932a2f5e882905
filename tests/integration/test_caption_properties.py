"""Whatever a server does, whoever is killed and whatever the budget: over real HTTP, by real processes.

(a) every picture ends in exactly one of captioned and failed,
(b) no picture with a durable answer is asked about again,
(c) no more is spent than the budget allows,
(d) no attempt sends a fifth request.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.integration.captioning import HASTY, PRICE, QUICK, USED, config, make_shard, open_attempts, outcomes
from tests.integration.processes import wait_until
from tests.servers.faults import FaultServer, fault_server
from vlmdata.captioning.journal.book import Account, Entry
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.journal.records import NANO
from vlmdata.captioning.money import price_of, worst_case
from vlmdata.captioning.questions import Asker
from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import CaptionConfig
from vlmdata.layout import Step

pytestmark = pytest.mark.integration

CONCURRENCY = 3
PATIENCE_S = 60.0
SAYS_ITS_USAGE = frozenset({"ok", "empty", "blank", "refusal", "content_filter"})
"""Faults that come with a count of tokens, and so with a price."""


@pytest.fixture(scope="module")
def running_faults() -> Iterator[FaultServer]:
    with fault_server() as server:
        yield server


@pytest.fixture(scope="module")
def children() -> ForkServerContext:
    """Processes that begin within milliseconds, as what they import is there already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vlmdata.captioning.shards", "vlmdata.captioning.asking", "py3langid"])
    return context


@dataclass(frozen=True)
class Start:
    """One time that somebody starts the run: how many processes at once, when which is killed, what they may spend."""

    retry: bool = False
    processes: int = 1
    killed_after: int | None = None
    victim: int = 0
    requests: int | None = None
    worst_cases: int | None = None


STARTS = st.builds(
    Start,
    retry=st.booleans(),
    processes=st.sampled_from([1, 2]),
    killed_after=st.none() | st.integers(0, 8),
    victim=st.sampled_from([0, 1]),
    requests=st.none() | st.integers(0, 14),
    worst_cases=st.none() | st.integers(0, 10),
)
SCRIPTS = st.lists(st.lists(st.sampled_from(QUICK), max_size=6), min_size=2, max_size=6)
_names = count()


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@example(scripts=[[], ["500"], [], ["empty"], []], starts=[Start(processes=2, killed_after=2, victim=1)])
@given(scripts=SCRIPTS, starts=st.lists(STARTS, min_size=1, max_size=3))
def test_whatever_the_faults_kills_and_budgets(
    running_faults: FaultServer,
    children: ForkServerContext,
    tmp_path_factory: pytest.TempPathFactory,
    scripts: list[list[str]],
    starts: list[Start],
) -> None:
    running_faults.reset()
    running_faults.scripts = dict(enumerate(scripts))
    running_faults.latency_s = 0.01
    dataset = Dataset(str(tmp_path_factory.mktemp("store")), f"any-{next(_names)}")
    world = World(running_faults, children, dataset, make_shard(dataset, range(len(scripts))))
    for start in [*starts, Start()]:
        world.take(start)
    assert not any(failure == "budget" for _, failure, _ in world.ends().values()), "nothing bounds the last one"


class World:
    """A server, a store, and what must hold after each time that somebody runs."""

    def __init__(self, server: FaultServer, children: ForkServerContext, dataset: Dataset, shard: Shard) -> None:
        self.server, self.children, self.dataset, self.before = server, children, dataset, shard
        self.done: Shard | None = None
        self.before_attempt: Counter[int] = Counter()
        self.kills = 0

    def take(self, start: Start) -> None:
        """Run, and look at everything."""
        if start.retry and self.done:
            self._retry(self.done)
        limits = self._config(start)
        spent, asked, answered = self._account(), Counter(self.server.requests), self._answered()
        shards = self._run(start, limits)
        self._looked_at(limits, spent, asked, answered)
        for shard in shards:
            self.done = shard
            self._all_ended()

    def ends(self) -> dict[int, tuple[str, str | None, int]]:
        """How each picture ended in the last run that came to its end."""
        assert self.done is not None
        return outcomes(self.dataset, self.done)

    def _retry(self, done: Shard) -> None:
        """A person wants another attempt for what failed."""
        before = {number: entry.attempt for number, entry in self._entries().items()}
        opened = open_attempts(self.dataset, done)
        more = {number for number, entry in self._entries().items() if entry.attempt > before[number]}
        assert len(more) == opened
        self.before_attempt.update({n: self.server.requests[n] - self.before_attempt[n] for n in more})

    def _run(self, start: Start, limits: CaptionConfig) -> list[Shard]:
        asked = self.server.requests.total()
        started = [self._begin(limits) for _ in range(start.processes)]
        victim = started[start.victim % len(started)][0]
        if start.killed_after is not None:
            self._kill(victim, asked + start.killed_after)
        for process, _ in started:
            process.join(PATIENCE_S)
            killed = start.killed_after is not None and process is victim
            assert process.exitcode in {0, -signal.SIGKILL if killed else 0}
        # What a killed process had sent has arrived.
        wait_until(lambda: self.server.at_once == 0, "the server has answered", PATIENCE_S, pause_s=0.005)
        return [Shard(*result.recv()) for process, result in started if process.exitcode == 0]

    def _begin(self, limits: CaptionConfig) -> tuple[ForkServerProcess, Connection]:
        shard = (self.before.name, self.before.rows, dict(self.before.manifests))
        ours, theirs = self.children.Pipe(duplex=False)
        told = (self.dataset.store_url, self.dataset.name, shard, limits.model_dump(mode="json"), theirs)
        process = self.children.Process(target=ask, args=told)
        process.start()
        return process, ours

    def _kill(self, process: ForkServerProcess, when: int) -> None:
        def its_time() -> bool:
            return not process.is_alive() or self.server.requests.total() >= when

        wait_until(its_time, f"{when} requests, or the end", PATIENCE_S, pause_s=0.002)
        process.kill()
        self.kills += 1

    def _looked_at(self, limits: CaptionConfig, before: Account, asked: Counter[int], answered: set[int]) -> None:
        server, now = self.server, self._account()
        assert all(sent - self.before_attempt[n] <= 4 for n, sent in server.requests.items()), "(d)"
        assert {n: server.requests[n] for n in answered} == {n: asked[n] for n in answered}, "(b)"
        for repeated in self._captioned_again().values():
            assert repeated <= self.kills, "(b) but for what was in flight when somebody was killed"
        assert self._captioned_again().total() <= self.kills * CONCURRENCY, "(b)"
        assert server.requests.total() <= now.requests, "a request is written down before it is sent"
        if limits.max_requests is not None:
            assert now.requests <= max(limits.max_requests, before.requests), "(c)"
        if limits.max_cost is not None:
            assert now.spent <= max(round(limits.max_cost * NANO), before.spent), "(c)"
        assert round(self._charged() * USED * NANO) <= now.spent, "(c) as the server counts it"

    def _all_ended(self) -> None:
        captioned = {int(id_, 16) for id_ in self._ids("samples")}
        failed = {int(id_, 16) for id_ in self._ids("rejects")}
        assert captioned.isdisjoint(failed) and captioned | failed == set(range(self.before.rows)), "(a)"
        said = {n: outcome for n, (outcome, _, _) in self.ends().items()}
        assert said == {n: "captioned" if n in captioned else "failed" for n in range(self.before.rows)}
        assert captioned <= self._answered(), "an answer is durable before it counts"

    def _ids(self, table: str) -> list[str]:
        assert self.done is not None
        ids: list[str] = self.dataset.read(self.done, Step.CAPTIONED, table, ["id"])["id"].to_pylist()
        return ids

    def _charged(self) -> int:
        """Requests whose answer said what it cost."""
        return sum(fault in SAYS_ITS_USAGE for number in self.server.requests for fault in self._said(number))

    def _captioned_again(self) -> Counter[int]:
        """How often the server gave each picture a caption that it had been given before."""
        return Counter({number: max(0, self._said(number).count("ok") - 1) for number in self.server.requests})

    def _said(self, number: int) -> list[str]:
        sent = self.server.requests[number]
        return [*self.server.scripts[number], *["ok"] * sent][:sent]

    def _config(self, start: Start) -> CaptionConfig:
        free = config(self.server, prices={"m": PRICE}, concurrency=CONCURRENCY)
        worst = worst_case(Asker.of(free).question(small=True), price_of(free))
        cost = None if start.worst_cases is None else start.worst_cases * worst / NANO
        return free.model_copy(update={"max_requests": start.requests, "max_cost": cost})

    def _account(self) -> Account:
        return Log(self.dataset.store, self.dataset.name).book.account

    def _answered(self) -> set[int]:
        return {number for number, entry in self._entries().items() if entry.answered}

    def _entries(self) -> dict[int, Entry]:
        log = Log(self.dataset.store, self.dataset.name)
        rows = self.dataset.read(self.before, Step.FILTERED, "samples", ["id", "sha256"]).to_pylist()
        keys = Asker.of(config(self.server)).keys([row["sha256"] for row in rows])
        log.load(keys)
        return {int(row["id"], 16): log.book.entry(key) for row, key in zip(rows, keys, strict=True)}


def ask(store: str, name: str, shard: Sequence[Any], told: dict[str, Any], result: Connection) -> None:
    """What a child does."""
    done = caption_shard(Dataset(store, name), Shard(*shard), CaptionConfig(**told), HASTY)
    result.send((done.name, done.rows, dict(done.manifests)))


def interrupt_once(sent: int, server: FaultServer) -> threading.Thread:
    """Ctrl-C for the main thread as soon as so many requests have arrived."""
    main = threading.main_thread().ident or 0

    def press() -> None:
        wait_until(lambda: server.requests.total() >= sent, f"{sent} requests", PATIENCE_S, pause_s=0.002)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(str(tmp_path / "store"), "faults")


def test_a_notebook_that_was_interrupted_goes_on_in_the_same_process(
    running_faults: FaultServer, dataset: Dataset
) -> None:
    running_faults.reset()
    running_faults.latency_s = 0.05
    before = make_shard(dataset, range(40))
    settings_ = config(running_faults, prices={"m": PRICE}, concurrency=CONCURRENCY)
    for stop_at in (6, 20):
        pressing = interrupt_once(stop_at, running_faults)
        with pytest.raises(KeyboardInterrupt):
            caption_shard(dataset, before, settings_, HASTY)
        pressing.join(PATIENCE_S)
    # Requests that were given back must not be waited for as if somebody still asked.
    within = threading.Timer(settings_.timeout_s, lambda: signal.pthread_kill(threading.main_thread().ident or 0, 2))
    within.start()
    done = caption_shard(dataset, before, settings_, HASTY)
    within.cancel()
    assert dataset.manifest(done, Step.CAPTIONED).samples.kept == 40
    assert running_faults.requests.total() <= 40 + 2 * CONCURRENCY and max(running_faults.requests.values()) <= 3
    account = Log(dataset.store, dataset.name).book.account
    assert account.reserved == 0 and account.requests == running_faults.requests.total()
