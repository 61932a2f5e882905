"""Whatever is asked, answered, killed and compacted, in whatever order and by however many: what must always hold."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vlmdata.captioning.journal.book import Book
from vlmdata.captioning.journal.grants import Finished, Granted, Limits, OverBudget, Wish, judge, may_open, unsent
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.journal.records import Ask, End, Open, Record
from vlmdata.store import LocalStore

KEYS = [f"{number:032x}" for number in range(5)]
MOST = 4
RESERVE = 100
# A machine of which this process knows nothing: only time says that it is gone.
WRITERS = [f"other-machine:{number}:1" for number in range(3)]


@dataclass
class Writer:
    """A process: its log, and requests that it has sent and not heard of."""

    name: str
    log: Log
    flying: dict[str, Granted] = field(default_factory=dict)


class Captioning(RuleBasedStateMachine):
    """Three processes ask about five pictures; the clock is ours."""

    @initialize(budget=st.integers(0, 2_500), requests=st.none() | st.integers(0, 25))
    def begin(self, budget: int, requests: int | None) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.limits = Limits(requests, budget)
        self.now = 1_000.0
        self.sent: Counter[tuple[str, int]] = Counter()
        self.real_cost = 0
        self.answers: dict[str, str] = {}
        self.writers = [self.born(name) for name in WRITERS]

    def born(self, name: str) -> Writer:
        return Writer(name, Log(LocalStore(self.folder.name), "set"))

    @rule(who=st.integers(0, 2), key=st.sampled_from(KEYS))
    def ask(self, who: int, key: str) -> None:
        writer, wish = self.writers[who], Wish(key, RESERVE, 60.0, MOST)
        if key in writer.flying:
            return
        grants: list[Any] = []

        def decide(book: Book) -> list[Record]:
            grants.append(judge(book, wish, self.limits, self.now, under_way=False))
            if not isinstance(grants[-1], Granted):
                return []
            g = grants[-1]
            return [Ask(key, g.attempt, g.request, g.until, wish.reserve, writer.name)]

        writer.log.load([key])
        writer.log.append(decide)
        grant = grants[-1]
        if isinstance(grant, Granted):
            assert key not in self.answers, "a key with a durable answer is asked again"
            self.sent[key, grant.attempt] += 1
            self.real_cost += RESERVE
            writer.flying[key] = grant
        elif isinstance(grant, Finished) and grant.entry.answered and grant.entry.end:
            assert grant.entry.end.text == self.answers[key]
        elif isinstance(grant, OverBudget):
            assert not self.limits.allow(grant.account, RESERVE)

    @rule(who=st.integers(0, 2), key=st.sampled_from(KEYS), how=st.sampled_from(["text", "fault", "final", "unsent"]),
          cost=st.none() | st.integers(0, RESERVE))  # fmt: skip
    def hear(self, who: int, key: str, how: str, cost: int | None) -> None:
        writer = self.writers[who]
        grant = writer.flying.pop(key, None)
        if grant is None or grant.until <= self.now:
            return
        if how == "unsent":
            self.sent[key, grant.attempt] -= 1
            self.real_cost -= RESERVE
            end = unsent(key, grant)
        else:
            text = f"{key} says {grant.request}" if how == "text" else None
            failure = None if text else ("transient" if how == "fault" else "permanent")
            end = End(key, grant.attempt, grant.request, text, failure, how == "final", 200, None, 1, 1, cost, 0.1, 0.0)  # type: ignore[arg-type]
            self.real_cost += (RESERVE if cost is None else cost) - RESERVE
            if text:
                self.answers[key] = text
        writer.log.append(lambda book: [end])

    @rule(who=st.integers(0, 2))
    def kill(self, who: int) -> None:
        self.writers[who] = self.born(WRITERS[who])

    @rule(who=st.integers(0, 2))
    def compact(self, who: int) -> None:
        self.writers[who].log.compact()

    @rule(who=st.integers(0, 2), key=st.sampled_from(KEYS))
    def retry(self, who: int, key: str) -> None:
        writer = self.writers[who]

        def decide(book: Book) -> list[Record]:
            return [wanted] if may_open(book, wanted, self.now) else []

        writer.log.load([key])
        # As a person sees it who does not know the news: others may have answered since, or be asking.
        wanted = Open(key, writer.log.book.entry(key).attempt + 1)
        writer.log.append(decide)

    @rule(seconds=st.sampled_from([1.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def no_fifth_request_and_no_money_over(self) -> None:
        if not hasattr(self, "sent"):
            return
        assert all(number <= MOST for number in self.sent.values())
        assert self.real_cost <= (self.limits.cost or 0)
        assert self.limits.requests is None or sum(self.sent.values()) <= self.limits.requests

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        logs = [self.born(name).log for name in WRITERS[:2]] + [self.writers[0].log]
        for log in logs:
            log.refresh()
            log.load(KEYS)
            assert log.book.account == logs[0].book.account
            assert log.book.account.spent == self.real_cost
            assert {k: e.end.text for k in KEYS if (e := log.book.entry(k)).answered and e.end} == self.answers
        self.folder.cleanup()


TestCaptioning = Captioning.TestCase
TestCaptioning.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
