"""When a request may start: requests in flight, requests a minute, tokens a minute; slower after a 429, then faster.

All of it lives on one event loop and keeps that loop's time. Concurrency goes
down by half and up by one, as TCP's window does (Chiu & Jain, 1989).

    pace = Pace(config)                            # one for each endpoint of a process
    async with pace.shift():                       # while a shard is captioned
        async with pace.slot(tokens=2_000) as turn:
            if turn is None:                       # pace.halt() was called: nothing starts any more
                return
            answer = await ask()
            turn.settle(answer.tokens)             # what the API says it took
            turn.went_well()                       # or turn.slowed(retry_after_s) on a 429
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from vlmdata.captioning.backoff import Backoff
from vlmdata.captioning.minute import MINUTE_S, TICK_S, Minute, Taken
from vlmdata.config import CaptionConfig

_SLOWEST = 1 / 64
_RECOVERY = 1 / 16
"""Of the full rate, for as many successes as there may be requests in flight."""
_FAREWELL_S = 10.0
FRESH_S = 2.0
"""How long what was drawn from a shared limit may be kept; its rate allows for that."""

_log = logging.getLogger("vlmdata")


class Member(Protocol):
    """One process among those that share limits."""

    async def take(self, requests: int, tokens: int) -> None:
        """Wait until so many more may be spent by this process."""

    async def hold(self, allot: Callable[[int], None], in_flight: Callable[[], int]) -> None:
        """Keep this process's share of the slots until cancelled, then give it back.

        Args:
            allot: Told how many requests may be in flight here from now on, each time that changes.
            in_flight: How many are; a slot that is in use is not given away.
        """


class Shared(Protocol):
    """Limits that hold over processes. Equal by value and hashable, as it names a pace."""

    def joined(self) -> AbstractAsyncContextManager[Member]:
        """Be one of the processes for as long as the block lasts."""


class _Membership:
    """This process's part in limits that others share, from joining to leaving; and what it has drawn from them.

    A draw is a round trip, so it is made for as many requests as last about a
    second: twice as many as last time if those were soon gone, half if some were left over.
    """

    def __init__(self, shared: Shared, config: CaptionConfig, in_flight: Callable[[], int], wake: Callable[[], None]):
        self._config = config
        self._wake = wake
        self._in_flight = in_flight
        self._member: Member | None = None
        self._block = 1
        self._requests = self._tokens = 0.0
        self._drawn_at = -math.inf
        self._drawing: asyncio.Task[None] | None = None
        self.allotted = 0
        self._task = asyncio.create_task(self._belong(shared))
        self._task.add_done_callback(lambda _: wake())

    async def _belong(self, shared: Shared) -> None:
        async with shared.joined() as self._member:
            await self._member.hold(self._allot, self._in_flight)

    def _allot(self, slots: int) -> None:
        self.allotted = slots
        self._wake()

    def check(self) -> None:
        """Raise what ended the membership, if anything did."""
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    async def leave(self) -> None:
        """Give the slots back."""
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=_FAREWELL_S)
        if self._task.done() and not self._task.cancelled() and (error := self._task.exception()):
            _log.debug("shared limits were left in disorder: %s", error)

    def covers(self, tokens: int, now: float) -> bool:
        """Whether one request of so many tokens may start without a draw."""
        if now - self._drawn_at > FRESH_S:
            self._let_go()
        return self._lacks(tokens) == (0, 0)

    def _let_go(self) -> None:
        """What is left is too old; a debt stays."""
        if self._requests >= 1 or self._tokens >= 1:
            self._block = max(1, self._block // 2)
        self._requests, self._tokens = min(0.0, self._requests), min(0.0, self._tokens)

    def _lacks(self, tokens: int, requests: int = 1) -> tuple[int, int]:
        more_requests = math.ceil(requests - self._requests) if self._config.requests_per_minute else 0
        more_tokens = math.ceil(tokens - self._tokens) if self._config.tokens_per_minute else 0
        return max(0, more_requests), max(0, more_tokens)

    async def draw(self, tokens: int) -> None:
        """Wait for at least one request of so many tokens; `stop_drawing` ends it early."""
        if self._member is None:
            raise RuntimeError("a slot was allotted before the limits were joined")
        now = asyncio.get_running_loop().time()
        if now - self._drawn_at < FRESH_S / 2:
            self._block *= 2
        self._block = min(self._block, self._seconds_worth(tokens))
        requests, amount = self._lacks(tokens * self._block, self._block)
        self._drawing = asyncio.create_task(self._member.take(requests, amount))
        try:
            await asyncio.wait({self._drawing})
        finally:
            self._drawing.cancel()
        if not self._drawing.cancelled():
            self._drawing.result()
            self._requests, self._tokens = self._requests + requests, self._tokens + amount
            self._drawn_at = asyncio.get_running_loop().time()

    def _seconds_worth(self, tokens: int) -> int:
        """Requests of so many tokens that a second of the tightest rate allows; at least 1."""
        by_requests = self._config.requests_per_minute or math.inf
        by_tokens = (self._config.tokens_per_minute or math.inf) / max(1, tokens)
        return max(1, int(min(by_requests, by_tokens) / MINUTE_S))

    def stop_drawing(self) -> None:
        """Nothing is to start any more."""
        if self._drawing:
            self._drawing.cancel()

    def spend(self, tokens: float, requests: int = 1) -> None:
        """Tokens may be fewer than none: some were given back."""
        self._requests, self._tokens = self._requests - requests, self._tokens - tokens


class Turn:
    """One request that was let in. Say how it went before its slot ends."""

    def __init__(self, pace: Pace, tokens: int, taken: Taken | None, generation: int) -> None:
        self._pace = pace
        self._tokens = tokens
        self._taken = taken
        self.generation = generation

    def settle(self, tokens: int) -> None:
        """The tokens that it took, input and output; what was reserved in excess is free again."""
        self._pace._settle(self._taken, tokens - self._tokens, tokens)
        self._tokens = tokens

    def went_well(self) -> None:
        """It was answered, and not with a 429."""
        self._pace._went_well(self.generation)

    def slowed(self, retry_after: float | None = None) -> None:
        """It was answered with a 429; nobody starts for `retry_after` seconds, at most `Backoff`'s longest."""
        self._pace._slowed(self.generation, retry_after or 0.0)


class Pace:
    """Lets requests start: first in, first out, within `config`'s limits, and at half the pace after each 429.

    Args:
        config: `concurrency`, `requests_per_minute`, `tokens_per_minute`.
        shared: The same limits over several processes; then slots are let only within `shift`.
    """

    def __init__(self, config: CaptionConfig, shared: Shared | None = None) -> None:
        self._config = config
        self._shared = shared
        self._requests = _minute(config.requests_per_minute)
        self._tokens = _minute(config.tokens_per_minute)
        self._level = config.concurrency
        self._factor = 1.0
        self._successes = self._generation = self._in_flight = self._shifts = 0
        self._closed_until = -math.inf
        self._halted = False
        self._membership: _Membership | None = None
        self._door = asyncio.Lock()  # its queue is the order: only who holds it may start
        self._changed = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """Requests that have started and not ended."""
        return self._in_flight

    @property
    def limit(self) -> int:
        """Requests that may be in flight now: at most `config.concurrency`, less after a 429 or where others share."""
        return min(self._level, self._membership.allotted) if self._membership else self._level

    def halt(self) -> None:
        """Let nothing start until `resume`: those who wait get no turn, at once."""
        self._halted = True
        self._changed.set()
        if self._membership:
            self._membership.stop_drawing()

    def resume(self) -> None:
        """Undo `halt`."""
        self._halted = False

    @asynccontextmanager
    async def shift(self) -> AsyncIterator[None]:
        """While requests are made: holds this process's part of the shared slots. Shifts may overlap."""
        self._shifts += 1
        if self._shared and not self._membership:
            self._membership = _Membership(self._shared, self._config, lambda: self._in_flight, self._changed.set)
        try:
            yield
        finally:
            self._shifts -= 1
            if not self._shifts and self._membership:
                leaving, self._membership = self._membership, None
                await leaving.leave()

    @asynccontextmanager
    async def slot(self, tokens: int = 0) -> AsyncIterator[Turn | None]:
        """Wait for leave to send one request of about `tokens` tokens, input and output; null once halted.

        Raises:
            Exception: whatever ended the membership in shared limits.
        """
        turn = await self._admit(tokens)
        try:
            yield turn
        finally:
            if turn:
                self._in_flight -= 1
                self._changed.set()

    async def _admit(self, tokens: int) -> Turn | None:
        async with self._door:
            while not self._halted:
                wait = self._wait_s(tokens)
                if wait:
                    await self._change_within(wait)
                elif self._membership and not self._membership.covers(tokens, _now()):
                    await self._membership.draw(tokens)
                else:
                    # Nothing is awaited from here to the slot: a cancelled waiter has taken nothing.
                    return self._start(tokens)
        return None

    def _wait_s(self, tokens: int) -> float:
        """Seconds until nothing stands in the way; infinite: until something changes."""
        if self._shared and not self._membership:
            raise RuntimeError("Pace.slot() with shared limits is for within Pace.shift()")
        if self._membership:
            self._membership.check()
        if self._in_flight >= self.limit:
            return math.inf
        now = _now()
        closed = max(0.0, self._closed_until - now)
        requests = self._requests.wait_s(1, now) if self._requests else 0.0
        return max(closed, requests, self._tokens.wait_s(tokens, now) if self._tokens else 0.0)

    async def _change_within(self, seconds: float) -> None:
        self._changed.clear()
        timer = None
        if seconds < math.inf:
            timer = asyncio.get_running_loop().call_later(max(seconds, TICK_S), self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if timer:
                timer.cancel()

    def _start(self, tokens: int) -> Turn:
        now = _now()
        self._in_flight += 1
        if self._requests:
            self._requests.take(1, now)
        taken = self._tokens.take(tokens, now) if self._tokens else None
        if self._membership:
            self._membership.spend(tokens)
        return Turn(self, tokens, taken, self._generation)

    def _settle(self, taken: Taken | None, more: int, tokens: int) -> None:
        if taken and self._tokens:
            self._tokens.settle(taken, tokens, _now())
        if self._membership:
            self._membership.spend(more, requests=0)
        self._changed.set()

    def _went_well(self, generation: int) -> None:
        self._successes += generation == self._generation
        if self._successes >= self._level:
            self._successes = 0
            self._run_at(min(self._level + 1, self._config.concurrency), min(1.0, self._factor + _RECOVERY))

    def _slowed(self, generation: int, retry_after: float) -> None:
        pause = min(max(retry_after, 0.0), Backoff.longest_retry_after_s)
        self._closed_until = max(self._closed_until, _now() + pause)
        # One who started before the last halving tells of the pace before it.
        if generation == self._generation:
            self._generation, self._successes = self._generation + 1, 0
            self._run_at(max(1, self.limit // 2), max(_SLOWEST, self._factor / 2))
            _log.debug("told to slow down: %d requests in flight, %.0f %% of the rate", self._level, 100 * self._factor)

    def _run_at(self, level: int, factor: float) -> None:
        self._level, self._factor = level, factor
        for minute in (self._requests, self._tokens):
            if minute:
                minute.slow_to(factor, _now())
        self._changed.set()


def _minute(limit: int | None) -> Minute | None:
    return Minute(limit) if limit is not None else None


def _now() -> float:
    return asyncio.get_running_loop().time()
