"""Requests start in order, no more at once and no more a minute than allowed. The clock jumps, so nothing waits."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vlmdata.captioning.pace import Pace, Turn
from vlmdata.config import CaptionConfig

RUN_S = 100_000.0
"""Far beyond what any schedule here takes."""


class Jump(selectors.SelectSelector):
    """Instead of waiting for a timer, moves the loop's clock to it."""

    now = 1_000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise AssertionError("everybody waits, and nothing is going to happen")
            self.now += timeout
        return ready


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """To its end, in no time."""
    clock = Jump()
    loop = asyncio.SelectorEventLoop(clock)
    loop.time = lambda: clock.now  # type: ignore[method-assign]
    try:
        return loop.run_until_complete(asyncio.wait_for(main, RUN_S))
    finally:
        loop.close()


def now() -> float:
    return asyncio.get_running_loop().time()


def config(**changes: Any) -> CaptionConfig:
    return CaptionConfig.model_validate({"concurrency": 4, **changes})


class Log:
    """What was asked, when it started, how many were on their way, and how it is to go."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.started: list[tuple[float, int, int]] = []
        self.most_at_once = 0
        self.at_once = 0

    async def request(
        self, number: int, tokens: int = 0, took: int | None = None, seconds: float = 1.0, slow: float | None = None
    ) -> None:
        async with self.pace.slot(tokens) as turn:
            if turn is None:
                return
            self.started.append((now(), number, tokens if took is None else took))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                await asyncio.sleep(seconds)
                self.end(turn, took, slow)
            finally:
                self.at_once -= 1

    @staticmethod
    def end(turn: Turn, took: int | None, slow: float | None) -> None:
        if took is not None:
            turn.settle(took)
        if slow is None:
            turn.went_well()
        else:
            turn.slowed(slow)

    @property
    def order(self) -> list[int]:
        return [number for _, number, _ in self.started]

    def worst_minute(self) -> tuple[int, int]:
        """Most requests, and most tokens, that started within any 60 s."""
        windows = [[each for each in self.started if t <= each[0] < t + 60.0] for t, _, _ in self.started]
        return max(map(len, windows)), max(sum(tokens for _, _, tokens in window) for window in windows)


requests = st.tuples(
    st.floats(0, 30),  # comes so long after the one before
    st.integers(0, 400),  # estimate, tokens
    st.floats(0, 1),  # part of the estimate that it took
    st.floats(0.01, 90),  # takes so long, seconds
    st.sampled_from([None, None, None, 0.0, 7.0]),  # 429, with Retry-After
)


@settings(max_examples=150, deadline=None)
@given(st.lists(requests, min_size=1, max_size=40), st.integers(1, 8), st.integers(1, 30), st.integers(400, 4_000))
@example([(0.0, 400, 1.0, 0.01, None)] * 40, 8, 30, 4_000)
@example([(0.0, 400, 0.1, 80.0, None)] * 20, 8, 30, 400)
def test_no_minute_and_no_moment_sees_more_than_allowed(
    schedule: list[tuple[float, int, float, float, float | None]], concurrency: int, rpm: int, tpm: int
) -> None:
    async def main() -> Log:
        pace = Pace(config(concurrency=concurrency, requests_per_minute=rpm, tokens_per_minute=tpm))
        log = Log(pace)
        async with asyncio.TaskGroup() as group:
            for number, (gap, tokens, part, seconds, slow) in enumerate(schedule):
                await asyncio.sleep(gap)
                group.create_task(log.request(number, tokens, int(tokens * part), seconds, slow))
        assert pace.in_flight == 0
        return log

    log = run(main())
    assert log.order == list(range(len(schedule)))
    assert log.most_at_once <= concurrency
    most_requests, most_tokens = log.worst_minute()
    assert most_requests <= rpm
    assert most_tokens <= tpm


steps = st.lists(st.tuples(st.floats(0, 3), st.floats(0.01, 5), st.floats(0, 12)), min_size=1, max_size=25)


@settings(max_examples=200, deadline=None)
@given(steps, st.integers(1, 3), st.sampled_from([None, 6, 60]))
def test_a_cancelled_one_loses_no_slot(
    schedule: list[tuple[float, float, float]], concurrency: int, rpm: int | None
) -> None:
    """Whoever is cancelled, wherever that finds them: afterwards all slots are there, and the others had their turn."""

    async def main() -> None:
        pace = Pace(config(concurrency=concurrency, requests_per_minute=rpm))
        log, loop = Log(pace), asyncio.get_running_loop()
        tasks = []
        for number, (gap, seconds, patience) in enumerate(schedule):
            await asyncio.sleep(gap)
            task = asyncio.create_task(log.request(number, seconds=seconds))
            tasks.append(task)
            if patience < 6:
                loop.call_later(patience, task.cancel)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}
        patient = [number for number, (_, _, patience) in enumerate(schedule) if patience >= 6]
        assert set(patient) <= set(log.order) and log.order == sorted(log.order)
        assert (pace.in_flight, log.most_at_once <= concurrency) == (0, True)

        full = Log(pace)
        await asyncio.sleep(60)
        await asyncio.gather(*(full.request(number, seconds=600) for number in range(concurrency)))
        assert full.most_at_once == concurrency

    run(main())


def test_a_minute_is_spread_evenly_and_used_whole() -> None:
    async def main() -> list[float]:
        log = Log(Pace(config(concurrency=100, requests_per_minute=120)))
        await asyncio.gather(*(log.request(number) for number in range(241)))
        return [at for at, _, _ in log.started]

    times = run(main())
    assert times[-1] - times[0] == pytest.approx(120, rel=0.02)
    per_second = [sum(t <= other < t + 1 for other in times) for t in times]
    assert max(per_second) <= 4


def test_tokens_that_were_not_needed_are_free_again() -> None:
    async def spend(took: int) -> float:
        log = Log(Pace(config(tokens_per_minute=6_000)))
        for number in range(60):
            await log.request(number, tokens=1_000, took=took, seconds=0.01)
        return now() - log.started[0][0]

    assert run(spend(1_000)) == pytest.approx(590, rel=0.02)
    assert run(spend(100)) == pytest.approx(59, rel=0.2)
    assert run(spend(2_000)) == pytest.approx(1_180, rel=0.02)


def test_more_than_a_minutes_tokens_take_a_minute_and_do_not_wait_for_ever() -> None:
    async def main() -> list[float]:
        log = Log(Pace(config(tokens_per_minute=100)))
        await asyncio.gather(*(log.request(number, tokens=250) for number in range(3)))
        return [at for at, _, _ in log.started]

    first, second, third = run(main())
    assert second - first >= 60 and third - second >= 60


def turns(pace: Pace, number: int) -> Coroutine[Any, Any, list[Turn]]:
    async def take() -> list[Turn]:
        taken: list[Turn] = []

        async def one() -> None:
            async with pace.slot() as turn:
                assert turn is not None
                taken.append(turn)

        for _ in range(number):
            await one()
        return taken

    return take()


def test_concurrency_halves_once_for_all_that_were_in_flight_and_recovers_one_by_one() -> None:
    async def main() -> None:
        pace = Pace(config(concurrency=16))
        before = await turns(pace, 5)
        for turn in before:
            turn.slowed()
        assert pace.limit == 8
        for turn in before * 10:
            turn.went_well()  # of the pace before: tells nothing about this one
        assert pace.limit == 8
        after = (await turns(pace, 1))[0]
        for limit in (8, 9, 10):
            for _ in range(limit - 1):
                after.went_well()
            assert pace.limit == limit
            after.went_well()
        assert pace.limit == 11
        for _ in range(1_000):
            after.went_well()
        assert pace.limit == 16
        for _ in range(10):
            (await turns(pace, 1))[0].slowed()
        assert pace.limit == 1

    run(main())


def test_the_rate_halves_with_it_and_recovers() -> None:
    async def main() -> tuple[float, float]:
        pace = Pace(config(concurrency=1, requests_per_minute=60))
        log = Log(pace)
        await log.request(0, seconds=0.01, slow=0.0)
        for number in range(1, 40):
            await log.request(number, seconds=0.01)
        times = [at for at, _, _ in log.started]
        return times[2] - times[1], times[-1] - times[-2]

    slowed, recovered = run(main())
    assert slowed == pytest.approx(2, rel=0.15)
    assert recovered == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize(("asked", "waited"), [(0.0, 0), (30.0, 30), (3_600.0, 120), (-5.0, 0)])
def test_nobody_starts_before_retry_after_is_over(asked: float, waited: float) -> None:
    async def main() -> list[float]:
        log = Log(Pace(config(concurrency=8)))
        await log.request(0, slow=asked)
        at = now()
        await asyncio.gather(*(log.request(number) for number in range(8)))
        return [start - at for start, _, _ in log.started[1:]]

    assert min(run(main())) == pytest.approx(waited)


@pytest.mark.parametrize("limits", [{"concurrency": 1}, {"concurrency": 9, "requests_per_minute": 1}])
def test_a_halt_lets_all_who_wait_go_at_once(limits: dict[str, int]) -> None:
    async def main() -> None:
        pace = Pace(config(**limits))
        log = Log(pace)
        waiting = [asyncio.create_task(log.request(number, seconds=50)) for number in range(5)]
        await asyncio.sleep(1)
        pace.halt()
        at = now()
        await asyncio.gather(*waiting[1:])
        await log.request(9)
        assert (now(), log.order) == (at, [0])
        pace.resume()
        await log.request(10)
        assert log.order == [0, 10]

    run(main())


class Counter:
    """A shared limit: so many slots for everybody, and grants that take a moment."""

    def __init__(self, slots: int = 100, grant_s: float = 0.02) -> None:
        self.slots = slots
        self.grant_s = grant_s
        self.joined_now = 0
        self.drawn: list[tuple[float, int, int]] = []
        self.allot: Callable[[int], None] = lambda slots: None
        self.broken: Exception | None = None

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[Counter]:
        self.joined_now += 1
        try:
            yield self
        finally:
            self.joined_now -= 1

    async def take(self, requests: int, tokens: int) -> None:
        self.drawn.append((now(), requests, tokens))
        await asyncio.sleep(self.grant_s)

    async def hold(self, allot: Callable[[int], None], in_flight: Callable[[], int]) -> None:
        self.allot = allot
        await asyncio.sleep(0.2)
        if self.broken:
            raise self.broken
        allot(self.slots)
        await asyncio.Event().wait()


def test_shared_slots_are_held_for_a_shift_and_followed() -> None:
    async def main() -> None:
        shared = Counter(slots=3)
        pace = Pace(config(concurrency=8), shared)
        log = Log(pace)
        async with pace.shift(), pace.shift():
            waiting = [asyncio.create_task(log.request(number, seconds=10)) for number in range(6)]
            await asyncio.sleep(1)
            assert (shared.joined_now, pace.in_flight) == (1, 3)
            shared.allot(5)
            await asyncio.sleep(1)
            assert pace.in_flight == 5
            shared.allot(2)
            await asyncio.gather(*waiting)
        assert (shared.joined_now, log.order) == (0, list(range(6)))
        async with pace.shift():
            await log.request(6)
        assert log.order[-1] == 6 and shared.drawn == []

    run(main())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 4), st.integers(0, 90), st.integers(0, 90)), min_size=1, max_size=40))
def test_what_starts_was_drawn_before(schedule: list[tuple[float, int, int]]) -> None:
    async def main() -> None:
        shared = Counter()
        pace = Pace(config(concurrency=8, requests_per_minute=600, tokens_per_minute=6_000), shared)
        log = Log(pace)
        async with pace.shift(), asyncio.TaskGroup() as group:
            for number, (gap, tokens, took) in enumerate(schedule):
                await asyncio.sleep(gap)
                group.create_task(log.request(number, tokens, took, seconds=0.3))
        drawn = [sum(column) for column in zip(*(draw[1:] for draw in shared.drawn), strict=True)]
        assert drawn[0] >= len(schedule)
        assert drawn[1] + 6_000 / 60 * 8 >= sum(took for _, _, took in schedule)
        # A second's worth, and what is owed for requests that took more than they had reserved.
        owed = sum(max(0, took - tokens) for _, tokens, took in schedule)
        assert all(requests <= 10 and tokens <= 100 + owed for _, requests, tokens in shared.drawn)

    run(main())


def test_a_busy_process_draws_about_once_a_second() -> None:
    async def main() -> Counter:
        shared = Counter()
        pace = Pace(config(concurrency=64, requests_per_minute=6_000), shared)
        log = Log(pace)
        async with pace.shift():
            await asyncio.gather(*(log.request(number, seconds=0.2) for number in range(3_000)))
        return shared

    shared = run(main())
    assert len(shared.drawn) < 50
    assert max(requests for _, requests, _ in shared.drawn) == 100


def test_cancelled_and_halted_draws_leave_the_door_open() -> None:
    async def main() -> None:
        shared = Counter(grant_s=5)
        pace = Pace(config(requests_per_minute=60), shared)
        log = Log(pace)
        async with pace.shift():
            first = asyncio.create_task(log.request(0))
            await asyncio.sleep(1)
            first.cancel()
            second = asyncio.create_task(log.request(1))
            await asyncio.sleep(1)
            pace.halt()
            at = now()
            await second
            assert now() == at
            pace.resume()
            await log.request(2)
        assert log.order == [2]

    run(main())


def test_what_was_drawn_and_not_used_soon_is_drawn_again_and_fewer() -> None:
    async def main() -> list[int]:
        shared = Counter(grant_s=0)
        pace = Pace(config(requests_per_minute=6_000), shared)
        log = Log(pace)
        async with pace.shift():
            await asyncio.gather(*(log.request(number, seconds=0.01) for number in range(20)))
            busy = len(shared.drawn)
            for number in range(3):
                await asyncio.sleep(3)
                await log.request(number, seconds=0.01)
        return [requests for _, requests, _ in shared.drawn[busy - 1 :]]

    largest, *later = run(main())
    assert later == [largest // 2, largest // 4, largest // 8]


def test_what_was_settled_is_drawn_or_need_not_be() -> None:
    async def drawn(took: int) -> int:
        shared = Counter(grant_s=0)
        pace = Pace(config(tokens_per_minute=60_000), shared)
        log = Log(pace)
        async with pace.shift():
            for number in range(20):
                await log.request(number, tokens=100, took=took, seconds=0.01)
        return sum(tokens for _, _, tokens in shared.drawn)

    assert run(drawn(10)) < 1_000
    assert run(drawn(200)) >= 3_800


def test_an_error_of_the_shared_limits_reaches_all_who_wait() -> None:
    async def main() -> None:
        shared = Counter()
        shared.broken = ConnectionError("the server is gone")
        pace = Pace(config(), shared)
        async with pace.shift():
            ends = await asyncio.gather(*(Log(pace).request(n) for n in range(3)), return_exceptions=True)
        assert [str(end) for end in ends] == ["the server is gone"] * 3
        shared.broken = None
        log = Log(pace)
        async with pace.shift():
            await log.request(0)
        assert log.order == [0]

    run(main())


def test_an_error_of_a_draw_reaches_who_waits_for_it() -> None:
    class Refusing(Counter):
        async def take(self, requests: int, tokens: int) -> None:
            raise ConnectionError("refused")

    async def main() -> None:
        pace = Pace(config(requests_per_minute=60), Refusing())
        async with pace.shift():
            with pytest.raises(ConnectionError, match="refused"):
                await Log(pace).request(0)
        assert pace.in_flight == 0

    run(main())


def test_shared_slots_outside_a_shift_are_a_mistake() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="shift"):
            await Log(Pace(config(), Counter())).request(0)

    run(main())
