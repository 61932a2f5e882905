"""Pictures from the web: asked for politely, through redirects, and again where that may help."""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from yarl import URL

from vlmdata.config import NetworkConfig
from vlmdata.event_loop import run, together
from vlmdata.ingest.web.addresses import Addresses
from vlmdata.ingest.web.asking import Answer, Check, Most, ask, new_session, require_ok
from vlmdata.ingest.web.consent import Consent
from vlmdata.ingest.web.hosts import Host, Hosts
from vlmdata.ingest.web.reserved import reserved_by_headers
from vlmdata.ingest.web.spill import Place, Spill
from vlmdata.ingest.web.trouble import Trouble
from vlmdata.opt_out import OptOut

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_AHEAD = 4
"""Addresses that wait for their turn, for each request under way: while one host is slow, others have theirs."""


@dataclass(frozen=True, slots=True)
class Download:
    """How one address ended: with a body, or in trouble."""

    url: str
    body: Place | None = None
    trouble: Trouble | None = None
    http_status: int | None = None
    attempts: int = 0
    final_url: str | None = None
    headers: Mapping[str, str] | None = None
    seconds: float = 0.0
    time: datetime | None = None


def download_all(config: NetworkConfig, urls: Sequence[str], opt_out: OptOut, spill: Spill) -> list[Download]:
    """Every address, in order; bodies go to `spill`. The limits hold for all threads that ask at once.

    Raises:
        StoreError: the disk is full.
    """

    ends: dict[int, Download] = {}

    async def all_of_them() -> None:
        downloader, waiting = _downloader(config), iter(enumerate(urls))

        async def take_turns() -> None:
            for place, url in waiting:
                ends[place] = await downloader.download(url, opt_out, spill)

        # A task for each address would cost the garbage collector more than the downloads take.
        async with together() as group:
            for _ in range(min(len(urls), _AHEAD * config.concurrency)):
                group.create_task(take_turns())
        await spill.settle()

    run(all_of_them())
    return [ends[place] for place in range(len(urls))]


class Downloader:
    """A process's only way to the web under one config. Touched by the event loop's thread alone."""

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self._session = new_session(config, Addresses(config.allow_networks))
        self._places = asyncio.Semaphore(config.concurrency)
        self._hosts = Hosts(config)
        self._consent = Consent(config, self._fetch_rules)

    async def download(self, url: str, opt_out: OptOut, spill: Spill) -> Download:
        """One picture; never raises for what a server does."""
        begun, trail = time.monotonic(), _Trail(url)
        for attempt in range(1, self._config.retries + 2):
            end = await self._attempt(trail, opt_out, spill)
            if end.trouble is None or end.trouble.kind != "transient" or attempt > self._config.retries:
                break
            if not await _paused(attempt, end.trouble):
                break
        return replace(end, attempts=trail.requests, seconds=time.monotonic() - begun, time=datetime.now(UTC))

    async def close(self) -> None:
        """End the connections that lie open."""
        await self._session.close()

    async def _attempt(self, trail: _Trail, opt_out: OptOut, spill: Spill) -> Download:
        try:
            answer = await self._follow(trail, Most(self._config.max_bytes), self._check, opt_out)
            return Download(
                trail.first, await spill.add(answer.body), None, answer.status, 0, answer.url, answer.headers
            )
        except Trouble as trouble:
            return Download(trail.first, None, trouble, trouble.status, 0, trail.now)

    async def _follow(self, trail: _Trail, most: Most, check: Check, opt_out: OptOut | None) -> Answer:
        """Ask, and go where the answers send us; `opt_out` None: the host's own rules are what is fetched."""
        url = _parsed(trail.first)
        trail.left_s = self._config.timeout_s
        for _ in range(self._config.max_redirects + 1):
            trail.now = str(url)
            host = self._hosts.of(url)
            if opt_out is not None:
                await self._require_consent(trail.now, host, opt_out)
            answer = await self._ask(trail, url, host, most, check)
            if answer.location is None:
                return answer
            url = _joined(url, answer)
        raise Trouble(
            "permanent", "too_many_redirects", f"more than {self._config.max_redirects} redirects", answer.status
        )

    async def _ask(self, trail: _Trail, url: URL, host: Host, most: Most, check: Check) -> Answer:
        # At the host first: who waits for a slow one must not keep others from theirs.
        async with host.turn(), self._places:
            trail.requests += 1
            begun = time.monotonic()
            try:
                answer = await self._in_time(trail.left_s, url, most, check)
            except Trouble as trouble:
                host.failed(trouble)
                raise
            finally:
                trail.left_s -= time.monotonic() - begun
            host.answered()
            return answer

    async def _in_time(self, seconds: float, url: URL, most: Most, check: Check) -> Answer:
        try:
            async with asyncio.timeout(max(seconds, 0)):
                return await ask(self._session, url, most, check)
        except TimeoutError:
            raise Trouble("transient", "timeout", f"not whole after {self._config.timeout_s:g} s") from None

    async def _require_consent(self, url: str, host: Host, opt_out: OptOut) -> None:
        if opt_out and opt_out.refuses_url(url):
            raise Trouble("refused", "opted_out", "the opt-out list names its address or domain")
        if self._config.obey_robots or self._config.obey_headers:
            (await self._consent.of(host)).check(url, host.name)

    async def _fetch_rules(self, url: URL, most: Most) -> Answer:
        return await self._follow(_Trail(str(url)), most, _any_status, None)

    def _check(self, status: int, headers: Mapping[str, str]) -> None:
        require_ok(status, headers)
        if self._config.obey_headers and (code := reserved_by_headers(headers, self._config.user_agent)):
            raise Trouble("refused", code, "the server's headers reserve it", status)


def _any_status(status: int, headers: Mapping[str, str]) -> None:
    """An answer of any kind says something about a host's rules."""


class _Trail:
    """Where one download has been, and how much time it has left."""

    def __init__(self, first: str) -> None:
        self.first = self.now = first
        self.requests = 0
        self.left_s = 0.0


def _parsed(text: str) -> URL:
    try:
        url = URL(text)
    except ValueError as error:
        raise Trouble("refused", "malformed_url", f"no address: {error}") from error
    return _require_web(url)


def _joined(url: URL, answer: Answer) -> URL:
    try:
        return _require_web(url.join(URL(answer.location or "")))
    except ValueError as error:
        raise Trouble("permanent", "bad_redirect", f"a redirect to no address: {error}", answer.status) from error


def _require_web(url: URL) -> URL:
    if url.scheme not in {"http", "https"}:
        raise Trouble("refused", "unsupported_scheme", f"{url.scheme or 'no'} scheme; only http and https are asked")
    if not url.host:
        raise Trouble("refused", "malformed_url", "no host")
    return url


async def _paused(attempt: int, trouble: Trouble) -> bool:
    """Wait before the next attempt; False if the server wants a longer wait than a run should take."""
    if trouble.code in {"host_down", "host_busy", "robots_unreachable"}:
        return False
    pause = max(_FIRST_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5), trouble.wait_s or 0.0)
    if pause > _LONGEST_PAUSE_S:
        return False
    await asyncio.sleep(pause)
    return True


_downloaders: dict[tuple[int, str], Downloader] = {}


def _downloader(config: NetworkConfig) -> Downloader:
    """This process's own one for these settings. Called on the loop's thread, which makes it safe without a lock."""
    key = (os.getpid(), config.model_dump_json())
    if key not in _downloaders:
        _downloaders[key] = Downloader(config)
    return _downloaders[key]


@atexit.register
def _hang_up() -> None:
    """Connections that lie open would be complained about when the process ends."""
    mine = [each for (process, _), each in _downloaders.items() if process == os.getpid()]
    for each in mine:
        run(each.close())
