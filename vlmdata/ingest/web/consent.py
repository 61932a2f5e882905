"""Whether a server lets us take what we are sent for: its robots.txt and its reservations, read once a host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from yarl import URL

from vlmdata.config import NetworkConfig
from vlmdata.ingest.web.asking import Answer, Most
from vlmdata.ingest.web.hosts import Host
from vlmdata.ingest.web.robots import Reservations, Robots, read_robots, read_tdmrep
from vlmdata.ingest.web.rules import Rules
from vlmdata.ingest.web.trouble import Trouble

_RULES = Most(512 * 1024 + 1, cut=True)
"""Of robots.txt is read; RFC 9309 asks for at least 500 KiB. One more shows that there is more."""
_KEPT_S = 24 * 3600.0
_ASK_AGAIN_S = 300.0
"""After rules that could not be read."""
_LONGEST_DELAY_S = 10.0
"""That a Crawl-delay may ask for: a run has an end."""

Fetch = Callable[[URL, Most], Awaitable[Answer]]
"""GET an address and what it redirects to, up to so many bytes."""


class Consent:
    """Finds out what hosts say."""

    def __init__(self, config: NetworkConfig, fetch: Fetch) -> None:
        self._config, self._fetch = config, fetch

    async def of(self, host: Host) -> Rules:
        """A host's rules; those who come while they are fetched wait for the same answer.

        Raises:
            Trouble: the host may not be asked at all.
        """
        if host.rules is None or _is_stale(host.rules):
            host.rules = asyncio.create_task(self._read(host))
        if host.rules.done():
            return host.rules.result()
        # The reading serves all who wait: none of them may end it.
        return await asyncio.shield(host.rules)

    async def _read(self, host: Host) -> Rules:
        origin = URL(host.name)
        robots, reservations = await asyncio.gather(self._robots(origin), self._reservations(origin))
        unknown = robots is not None and robots.unknown
        if robots and robots.delay_s:
            host.delay_s = max(host.delay_s, min(robots.delay_s, _LONGEST_DELAY_S))
        return Rules(robots, reservations, time.monotonic() + (_ASK_AGAIN_S if unknown else _KEPT_S))

    async def _robots(self, origin: URL) -> Robots | None:
        if not self._config.obey_robots:
            return None
        return read_robots(*await self._file(origin / "robots.txt"), self._config.user_agent)

    async def _reservations(self, origin: URL) -> Reservations | None:
        if not self._config.obey_headers:
            return None
        return read_tdmrep(*await self._file(origin / ".well-known" / "tdmrep.json"))

    async def _file(self, url: URL) -> tuple[int | None, bytes]:
        """Status and bytes of a host's own file; no status: there was no answer. Trouble if it may not be asked."""
        try:
            answer = await self._fetch(url, _RULES)
        except Trouble as trouble:
            if trouble.kind == "refused":
                raise
            return trouble.status, b""
        return answer.status, answer.body


def _is_stale(task: asyncio.Task[Rules]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None or task.result().until < time.monotonic())
