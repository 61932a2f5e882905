"""Whatever a server does, whoever is killed at whichever step: many schedules, in one process, over real HTTP.

Each run of a schedule has a line and a journal of its own over one store, as
a process has. It dies between two operations of its store, or right after one
whose answer it does not live to hear: what is durable then is what a killed
process leaves, and nothing after it is written. `test_caption_properties`
kills a few real ones.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from itertools import count
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.integration.captioning import HASTY, PRICE, USED, config
from tests.integration.seaweed import BUCKET, S3
from tests.integration.test_caption_properties import SAYS_ITS_USAGE
from tests.servers.faults import (
    CAPTIONED,
    PERMANENT,
    REFUSED,
    TRANSIENT,
    FaultServer,
    caption,
    fault_server,
    long_tailed,
    picture,
)
from vlmdata.captioning import line as lines
from vlmdata.captioning.answers import PROVIDERS
from vlmdata.captioning.asking import caption_all
from vlmdata.captioning.client import CaptionClient
from vlmdata.captioning.endings import Manners, Round, Subject
from vlmdata.captioning.endpoint import endpoint_of
from vlmdata.captioning.journal import grants, journal
from vlmdata.captioning.journal.book import Account, Entry
from vlmdata.captioning.journal.history import requests_of
from vlmdata.captioning.journal.journal import Journal
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.journal.records import NANO
from vlmdata.captioning.money import limits_of, price_of, worst_case
from vlmdata.captioning.questions import Asker
from vlmdata.checkpoint import Dataset
from vlmdata.config import CaptionConfig
from vlmdata.store import LocalStore, Store, open_store

pytestmark = pytest.mark.integration

CONCURRENCY = 3
TIMEOUT_S = 0.15
NAME = "any"
USED_BY = SAYS_ITS_USAGE | {"parts", "wrong_type"}
FAULTS = (*TRANSIENT, *PERMANENT, *REFUSED, *CAPTIONED, "401", "403", "hang", "drip")


@dataclass(frozen=True)
class Life:
    """One process: at which operation of its store it ends, if at any, and how."""

    ends_at: int | None = None
    end: str = "killed before"
    """killed before | killed after | stopped: by Ctrl-C, which lets it put its things in order."""


@dataclass(frozen=True)
class Start:
    """One time that somebody starts the run: processes at once, what they may spend, another attempt before it."""

    lives: tuple[Life, ...] = (Life(),)
    retry: bool = False
    requests: int | None = None
    worst_cases: int | None = None


LIVES = st.builds(
    Life,
    ends_at=st.none() | st.integers(0, 30),
    end=st.sampled_from(["killed before", "killed after", "stopped"]),
)
STARTS = st.builds(
    Start,
    lives=st.lists(LIVES, min_size=1, max_size=3).map(tuple),
    retry=st.booleans(),
    requests=st.none() | st.integers(0, 14),
    worst_cases=st.none() | st.integers(0, 10),
)
ANY = st.lists(st.sampled_from(FAULTS), max_size=6)
LASTING = st.lists(st.sampled_from(TRANSIENT), min_size=4, max_size=6)
"""More than an attempt has requests for."""
SCRIPTS = st.lists(ANY | LASTING, min_size=1, max_size=6)


class Dead(RuntimeError):
    """Nothing is written any more by who was killed."""


class Mortal(LocalStore):
    """A process's way to the store; its end comes at an operation."""

    def __init__(self, root: str, life: Life, ending: Callable[[], None]) -> None:
        super().__init__(root)
        self._life, self._ending = life, ending
        self._operations = count()
        self._lock = threading.Lock()
        self.dead = False

    def _do(self, operation: Callable[..., Any], *args: Any) -> Any:
        with self._lock:
            if self.dead:
                raise Dead
            its_time = next(self._operations) == self._life.ends_at
            if its_time:
                self.dead = self._life.end != "stopped"
                self._ending()
            if self.dead and self._life.end == "killed before":
                raise Dead
            done = operation(*args)
            if self.dead:
                raise Dead
            return done

    def get(self, path: str) -> bytes:
        found: bytes = self._do(super().get, path)
        return found

    def create(self, path: str, data: Any) -> bool:
        won: bool = self._do(super().create, path, data)
        return won

    def children(self, prefix: str) -> list[str]:
        found: list[str] = self._do(super().children, prefix)
        return found

    def exists(self, path: str) -> bool:
        found: bool = self._do(super().exists, path)
        return found


_here: ContextVar[Any] = ContextVar("process")
_gone: set[str] = set()
_numbers = count()


@pytest.fixture(scope="module")
def running_faults() -> Iterator[FaultServer]:
    with fault_server() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def _processes_in_one() -> Iterator[None]:
    """Each run has what a process has of its own; who is gone is known; nothing waits longer than it must."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "process", lambda: _here.get())
        patch.setattr(grants, "is_gone", lambda writer: writer in _gone)
        patch.setattr(journal, "_LOOK_AGAIN_S", 0.01)
        patch.setattr(httpx, "create_ssl_context", cache(httpx.create_ssl_context))
        yield


async def live(world: World, life: Life, limits: CaptionConfig) -> Round | None:
    """A process from its start to its end: how the pictures ended, or None if it ended first."""
    parts, name = lines._Process(), f"process {next(_numbers)}"
    _here.set(parts)
    loop, itself = asyncio.get_running_loop(), asyncio.current_task()
    assert itself is not None
    store = world.store
    if life.ends_at is not None:
        store = Mortal(store.url, life, lambda: loop.call_soon_threadsafe(itself.cancel))
    mine: Journal | None = None
    try:
        log = await loop.run_in_executor(parts.encoders, Log, store, NAME)
        mine = Journal(log, limits_of(limits))
        mine._writer = name
        client = CaptionClient(endpoint_of(limits, world.pictures), PROVIDERS["openai"], limits)
        return await caption_all(client, mine, world.subjects(), Manners(world.asker.prompt, HASTY))
    except (Dead, asyncio.CancelledError):
        assert life.ends_at is not None
        itself.uncancel()
        return None
    finally:
        if mine is not None:
            await _at_rest(mine)
        for line in parts._lines.values():
            for pool in line._pools:
                await pool.aclose()
        parts.encoders.shutdown(wait=False)
        _gone.add(name)


async def _at_rest(mine: Journal) -> None:
    """What was to be written down is; by who was killed it cannot be."""
    while mine._committing is not None and not mine._committing.done():
        await asyncio.wait({mine._committing})
    mine._thread.shutdown(wait=False)


@dataclass
class World:
    """A server, a store, and what must hold after each start."""

    server: FaultServer
    store: Store
    scripts: list[list[str]]
    before_attempt: Counter[int] = field(default_factory=Counter)
    ended: int = 0

    def __post_init__(self) -> None:
        self.pictures = len(self.scripts)
        self.images = [picture(number) for number in range(self.pictures)]
        self.free = config(self.server, prices={"m": PRICE}, concurrency=CONCURRENCY, timeout_s=TIMEOUT_S)
        self.asker = Asker.of(self.free)
        self.keys = self.asker.keys([sha256(image).hexdigest() for image in self.images])

    def subjects(self) -> list[Subject]:
        question = self.asker.question(small=True)
        return [
            Subject(key, lambda image=image: image, question)  # type: ignore[misc]
            for key, image in zip(self.keys, self.images, strict=True)
        ]

    async def take(self, start: Start) -> list[Round]:
        """Run, and look at everything."""
        if start.retry:
            await self._retry()
        worst = worst_case(self.asker.question(small=True), price_of(self.free))
        cost = None if start.worst_cases is None else start.worst_cases * worst / NANO
        limits = self.free.model_copy(update={"max_requests": start.requests, "max_cost": cost})
        before, asked, answered = self.account(), Counter(self.server.requests), self._answered()
        ends = await asyncio.gather(*(asyncio.create_task(live(self, life, limits)) for life in start.lives))
        rounds = [one for one in ends if one is not None]
        self.ended += len(ends) - len(rounds)
        # What was sent by who was killed has arrived.
        while self.server.at_once:
            await asyncio.sleep(0.005)
        self._look(limits, before, asked, answered)
        for one in rounds:
            self._all_ended(one)
        return rounds

    async def _retry(self) -> None:
        """A person wants another attempt for what failed."""
        before = {number: entry.attempt for number, entry in self._entries().items()}
        wanted = Journal(Log(self.store, NAME), limits_of(self.free))
        await wanted.open_attempts(self.keys)
        wanted._thread.shutdown()
        more = [number for number, entry in self._entries().items() if entry.attempt > before[number]]
        self.before_attempt.update({n: self.server.requests[n] - self.before_attempt[n] for n in more})

    def _look(self, limits: CaptionConfig, before: Account, asked: Counter[int], answered: set[int]) -> None:
        server, now = self.server, self.account()
        assert all(sent - self.before_attempt[n] <= 4 for n, sent in server.requests.items()), "(d)"
        assert {n: server.requests[n] for n in answered} == {n: asked[n] for n in answered}, "(b)"
        again = sum(max(0, sum(said in CAPTIONED for said in told) - 1) for told in server.said.values())
        assert again <= self.ended * CONCURRENCY + self.given_up(), "(b) but for what nobody lived or waited to hear"
        assert server.requests.total() <= now.requests, "a request is written down before it is sent"
        if limits.max_requests is not None:
            assert now.requests <= max(limits.max_requests, before.requests), "(c)"
        if limits.max_cost is not None:
            assert now.spent <= max(round(limits.max_cost * NANO), before.spent), "(c)"
        charged = sum(said in USED_BY for told in server.said.values() for said in told)
        assert round(charged * USED * NANO) <= now.spent, "(c) as the server counts it"

    def _all_ended(self, one: Round) -> None:
        assert [attempt.key for attempt in one.attempts] == self.keys, "(a)"
        assert all((attempt.text is None) != (attempt.failure is None) for attempt in one.attempts), "(a)"
        captioned = {number for number, attempt in enumerate(one.attempts) if attempt.text}
        assert all(one.attempts[number].text == caption(number) for number in captioned)
        assert captioned <= self._answered(), "an answer is durable before it counts"

    def given_up(self) -> int:
        """Requests that were answered too late, if at all: a busy machine's, too."""
        history = requests_of(Dataset(self.store.url, NAME), self.keys)
        ends = [request.end for told in history.values() for request in told]
        return sum((end.message or "").startswith("no answer within") for end in ends if end is not None)

    def account(self) -> Account:
        return Log(self.store, NAME).book.account

    def _answered(self) -> set[int]:
        return {number for number, entry in self._entries().items() if entry.answered}

    def _entries(self) -> dict[int, Entry]:
        log = Log(self.store, NAME)
        log.load(self.keys)
        return {number: log.book.entry(key) for number, key in enumerate(self.keys)}


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@example(scripts=[[], ["401"], ["hang"]], starts=[Start(lives=(Life(9, "killed after"), Life(12)))])
@given(scripts=SCRIPTS, starts=st.lists(STARTS, min_size=1, max_size=3))
def test_any_schedule_of_faults_kills_and_budgets(
    running_faults: FaultServer,
    tmp_path_factory: pytest.TempPathFactory,
    scripts: list[list[str]],
    starts: list[Start],
) -> None:
    """(a) to (d) of `test_caption_properties`, with every fault that the server knows."""
    server = running_faults
    server.reset()
    server.scripts = dict(enumerate(scripts))
    server.latencies, server.pause_s = long_tailed(len(scripts), 0.002), 0.02
    world = World(server, LocalStore(str(tmp_path_factory.mktemp("store"))), scripts)

    async def all_of_it() -> None:
        for start in starts:
            await world.take(start)
        [last] = await world.take(Start())
        assert not any(attempt.failure == "budget" for attempt in last.attempts), "nothing bounds the last one"

    asyncio.run(all_of_it())
    # Who did not live or wait to hear an answer did not hear when to come again; who wants another attempt may come.
    if not world.ended and not world.given_up() and not any(start.retry for start in starts):
        assert "early" not in {said for told in server.said.values() for said in told}, "Retry-After is obeyed"


def test_runs_at_once_in_a_bucket_keep_to_one_budget(running_faults: FaultServer, s3: S3) -> None:
    """Writers that meet on a real S3 server: nothing is lost, asked twice, or spent beyond the limit."""
    server = running_faults
    server.reset()
    server.latencies = long_tailed(1, 0.01)
    world = World(server, open_store(f"s3://{BUCKET}/runs-at-once"), [[] for _ in range(12)])
    world.free = world.free.model_copy(update={"timeout_s": 30.0})

    async def all_of_it() -> None:
        rounds = await world.take(Start(lives=(Life(), Life()), requests=5, worst_cases=2))
        assert [len(one.attempts) for one in rounds] == [12, 12]
        assert server.requests.total() == world.account().requests == 5
        rounds = await world.take(Start(lives=(Life(), Life())))
        assert all(attempt.text for one in rounds for attempt in one.attempts)

    asyncio.run(all_of_it())
    assert server.requests == dict.fromkeys(range(12), 1)
    account = world.account()
    assert (account.reserved, account.requests, account.settled) == (0, 12, round(12 * USED * NANO))
