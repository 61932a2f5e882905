"""Limits of captioning that hold over processes and runs, as Prefect's global concurrency limits.

`vlmdata-<dataset>-requests` and `-tokens` are rate limits (their slots decay),
`-captions` are requests in flight and `-processes` counts who shares them,
both held by leases: those of a process that died lapse after a minute. People
see all four in Prefect, and what they change there holds until the next run starts.

Prefect counts whole decayed slots only, and forgets what decayed since the
last change each time it refuses. So a request is a thousand slots, and slots
are asked for only once a look, which changes nothing, has shown that they are there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.responses import ConcurrencyLimitWithLeaseResponse, GlobalConcurrencyLimitResponse
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL

from tasks import OWN_SERVER
from tasks.job import Job
from vlmdata.captioning.pace import FRESH_S
from vlmdata.config import CaptionConfig
from vlmdata.errors import VlmdataError

LEASE_S = 60
"""Seconds; Prefect allows no shorter lease."""

_RENEW_S = LEASE_S / 3
_SLOTS_A_REQUEST = 1_000
_MOST_PROCESSES = 100_000
_UNEASY_BEAT_S, _EASY_BEAT_S = 1.0, 3.0
_PATIENCE_S = 2 * LEASE_S
_LOCKED, _GONE = 423, 410

_log = logging.getLogger("vlmdata")


@dataclass(frozen=True)
class Limit:
    """One global concurrency limit: its name, its slots, and how many come back each second by themselves."""

    name: str
    slots: int
    decay: float | None = None


def prepare(job: Job) -> PrefectLimits | None:
    """Create or update the limits of a run's dataset, as its config says; null where no Prefect server is set."""
    limits = shared_limits(job)
    if limits:
        with get_client(sync_client=True) as client:
            for limit in limits_of(job.config.dataset, job.config.caption):
                _again(lambda limit=limit: client.upsert_global_concurrency_limit_by_name(*_row(limit)))  # type: ignore[misc]
    return limits


def _row(limit: Limit) -> tuple[str, int, float | None]:
    return limit.name, limit.slots, limit.decay


def _again(upsert: Callable[[], None]) -> None:
    """Of two runs that start at once, the second finds the limit that it wanted to create."""
    try:
        upsert()
    except ObjectAlreadyExists:
        upsert()


def shared_limits(job: Job) -> PrefectLimits | None:
    """What `Pace` shares over the processes of a run; null where there is nobody to share it with.

    That is so where no Prefect server is set, and where a build that is one
    process has a server of its own.
    """
    if not PREFECT_API_URL.value() or (job.config.engine == "threads" and OWN_SERVER in os.environ):
        return None
    caption = job.config.caption
    rated = (caption.requests_per_minute is not None, caption.tokens_per_minute is not None)
    return PrefectLimits(job.config.dataset, *rated)


def limits_of(dataset: str, caption: CaptionConfig) -> list[Limit]:
    """The limits that a config asks for.

    Bursts and decay are such that no 60 seconds see more than the config's
    number, with what a process drew and kept for `FRESH_S` before it started.
    """
    prefix, seconds = f"vlmdata-{dataset}", 60 + FRESH_S
    limits = [Limit(f"{prefix}-captions", caption.concurrency), Limit(f"{prefix}-processes", _MOST_PROCESSES)]
    if requests := caption.requests_per_minute:
        burst = max(1, requests // 30)
        # Whole requests: a minute sees fewer than burst + decay x seconds, so one more may be allowed for.
        decay = _SLOTS_A_REQUEST * (requests + 1 - burst) / seconds
        limits.append(Limit(f"{prefix}-requests", burst * _SLOTS_A_REQUEST, decay))
    if tokens := caption.tokens_per_minute:
        burst = max(1, tokens // 10)
        limits.append(Limit(f"{prefix}-tokens", burst, max(1, tokens - burst) / seconds))
    return limits


@dataclass(frozen=True)
class PrefectLimits:
    """Implements `vlmdata.captioning.pace.Shared`: three values that travel to any process of a run."""

    dataset: str
    requests: bool
    tokens: bool

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[PrefectMember]:
        """One connection to the server for as long as the block lasts."""
        async with get_client() as client:
            yield PrefectMember(client, self)


class PrefectMember:
    """Implements `vlmdata.captioning.pace.Member`."""

    def __init__(self, client: PrefectClient, limits: PrefectLimits) -> None:
        self._client = client
        self._limits = limits

    async def take(self, requests: int, tokens: int) -> None:
        """Wait until so many more may be spent by this process; more than a limit's burst comes in parts."""
        if requests and self._limits.requests:
            await self._take(f"vlmdata-{self._limits.dataset}-requests", requests * _SLOTS_A_REQUEST)
        if tokens and self._limits.tokens:
            await self._take(f"vlmdata-{self._limits.dataset}-tokens", tokens)

    async def _take(self, name: str, slots: int) -> None:
        while slots:
            limit = await _look(self._client, name)
            part = min(slots, max(1, limit.limit))
            short = part - (limit.limit - limit.active_slots)
            if short <= 0 and await self._granted(name, part):
                slots -= part
            else:
                wait = max(short, 1) / limit.slot_decay_per_second if limit.slot_decay_per_second else 1.0
                # Those who wait for the same slots come back one after the other.
                await asyncio.sleep(wait + random.uniform(0.0, 0.05))

    async def _granted(self, name: str, slots: int) -> bool:
        try:
            await self._client.increment_concurrency_slots([name], slots, "rate_limit")
        except httpx.HTTPStatusError as error:
            if error.response.status_code != _LOCKED:
                raise
            return False
        return True

    async def hold(self, allot: Callable[[int], None], in_flight: Callable[[], int]) -> None:
        """Keep a fair part of the slots: all of them, over the number of processes that are captioning."""
        processes = Slots(self._client, f"vlmdata-{self._limits.dataset}-processes")
        slots = Slots(self._client, f"vlmdata-{self._limits.dataset}-captions")
        try:
            await processes.grow(1)
            while True:
                await processes.renew()
                await slots.renew()
                fair = await _fair(self._client, slots.name, processes.name)
                await _fit(slots, fair, allot, in_flight)
                beat = _EASY_BEAT_S if slots.held == fair else _UNEASY_BEAT_S
                await asyncio.sleep(beat * random.uniform(0.5, 1.0))
        finally:
            allot(0)
            for held in (slots, processes):
                await held.release()


async def _fair(client: PrefectClient, captions: str, processes: str) -> int:
    shared, members = await _look(client, captions), await _look(client, processes)
    return max(1, shared.limit // max(1, members.active_slots))


async def _fit(slots: Slots, fair: int, allot: Callable[[int], None], in_flight: Callable[[], int]) -> None:
    """Move towards the fair part; what is in use is given back at a later beat."""
    if slots.held > fair:
        allot(slots.least(fair))
        await slots.shrink(fair, in_flight)
    else:
        await slots.grow(fair)
    allot(min(slots.held, fair))


@dataclass(eq=False)
class Lease:
    """Slots that are counted as taken until they are given back, or not renewed for `LEASE_S`."""

    id: UUID
    slots: int
    renewed: float


class Slots:
    """What one process holds of a limit: leases of sizes that are powers of two, as a lease cannot be split."""

    def __init__(self, client: PrefectClient, name: str) -> None:
        self.name = name
        self._client = client
        self._leases: list[Lease] = []
        self._empty_since = monotonic()

    @property
    def held(self) -> int:
        """Slots in all."""
        return sum(lease.slots for lease in self._leases)

    def least(self, most: int) -> int:
        """Slots of the leases that would be kept, were `most` to be held."""
        return sum(lease.slots for lease in self._kept(most))

    def _kept(self, most: int) -> list[Lease]:
        kept, room = [], most
        for lease in sorted(self._leases, key=lambda lease: -lease.slots):
            if lease.slots <= room:
                kept.append(lease)
                room -= lease.slots
        return kept

    async def grow(self, most: int) -> None:
        """Take what is free, up to `most` in all."""
        if self.held < most:
            limit = await _look(self._client, self.name)
            for size in parts(min(most - self.held, limit.limit - limit.active_slots)):
                if not await self._lease(size):
                    break
        self._complain()

    async def _lease(self, slots: int) -> bool:
        try:
            response = await self._client.increment_concurrency_slots_with_lease(
                [self.name], slots, "concurrency", LEASE_S
            )
        except httpx.HTTPStatusError as error:
            if error.response.status_code != _LOCKED:
                raise
            return False
        granted = ConcurrencyLimitWithLeaseResponse.model_validate(response.json())
        self._leases.append(Lease(granted.lease_id, slots, monotonic()))
        return True

    def _complain(self) -> None:
        if self._leases:
            self._empty_since = monotonic()
        elif monotonic() - self._empty_since > _PATIENCE_S:
            self._empty_since = monotonic()
            _log.warning(
                "no slot of Prefect's limit %s is free for %d s: other runs of this dataset hold them all; "
                "if there are none (the server was restarted while they ran), "
                "run: prefect gcl update %s --active-slots 0",
                *(self.name, _PATIENCE_S, self.name),
            )

    async def shrink(self, most: int, in_flight: Callable[[], int]) -> None:
        """Give back what is above `most` and not in use."""
        kept = self._kept(most)
        for lease in [lease for lease in self._leases if lease not in kept]:
            if in_flight() <= self.held - lease.slots:
                self._leases.remove(lease)
                await self._client.release_concurrency_slots_with_lease(lease.id)

    async def renew(self) -> None:
        """Renew in time; what the server has forgotten is not held any more."""
        for lease in list(self._leases):
            age = monotonic() - lease.renewed
            if age > _RENEW_S and not await self._renewed(lease):
                self._leases.remove(lease)
                if age < LEASE_S:
                    # It has not lapsed: the server lost its leases when it was restarted, but still counts the slots.
                    await self._client.release_concurrency_slots([self.name], lease.slots, age)

    async def _renewed(self, lease: Lease) -> bool:
        now = monotonic()
        try:
            await self._client.renew_concurrency_lease(lease.id, LEASE_S)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != _GONE:
                raise
            return False
        lease.renewed = now
        return True

    async def release(self) -> None:
        """Give all back."""
        while self._leases:
            await self._client.release_concurrency_slots_with_lease(self._leases.pop().id)


def parts(slots: int) -> list[int]:
    """Powers of two of which any number up to `slots` is a sum; they add up to `slots`."""
    sizes, size = [], 1
    while slots > 0:
        sizes.append(min(size, slots))
        slots -= sizes[-1]
        size *= 2
    return sorted((power for size in sizes for power in _powers(size)), reverse=True)


def _powers(number: int) -> list[int]:
    return [1 << place for place in range(number.bit_length()) if number >> place & 1]


async def _look(client: PrefectClient, name: str) -> GlobalConcurrencyLimitResponse:
    try:
        return await client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound as error:
        raise VlmdataError(
            f"Prefect's concurrency limit {name!r} is not there any more; run the same build again, which creates it"
        ) from error
