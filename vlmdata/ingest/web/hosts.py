"""Turns at a host: how many at a time, how far apart, and when to leave it in peace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from yarl import URL

from vlmdata.config import NetworkConfig
from vlmdata.ingest.web.rules import Rules
from vlmdata.ingest.web.trouble import Trouble

_STRIKES = 8
"""Connections in a row that came to nothing, after which a host counts as down."""
_DOWN_S = 60.0
_LONGEST_PAUSE_S = 30.0
"""A host that asks for more is not waited for; a later run asks again."""
_DEAD = {"connect", "connect_timeout", "dns"}
_MOST_HOSTS = 50_000


class Host:
    """One scheme, name and port. Touched by the event loop's thread alone."""

    def __init__(self, name: str, config: NetworkConfig) -> None:
        self.name = name
        self.delay_s = config.host_delay_s
        self.rules: asyncio.Task[Rules] | None = None
        """What it says of itself, once somebody has asked."""
        self.users = 0
        self._places = asyncio.Semaphore(config.per_host)
        self._next_start = 0.0
        self._strikes = 0
        self._down: tuple[str, str] | None = None
        """Code and detail of why nobody asks it for now."""
        self._down_until = 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """When it is ours to ask.

        Raises:
            Trouble: the host is down, or wants to be left alone for long.
        """
        self.users += 1
        try:
            async with self._places:
                self._require_up()
                await self._wait()
                self._require_up()
                yield
        finally:
            self.users -= 1

    def _require_up(self) -> None:
        if self._down and time.monotonic() < self._down_until:
            raise Trouble("transient", *self._down)

    async def _wait(self) -> None:
        now = time.monotonic()
        start = max(now, self._next_start)
        self._next_start = start + self.delay_s
        if start > now:
            await asyncio.sleep(start - now)

    def answered(self) -> None:
        """It is there."""
        self._strikes, self._down = 0, None

    def failed(self, trouble: Trouble) -> None:
        """Take in a trouble that may concern all who ask."""
        if trouble.wait_s:
            self._pause(trouble)
        if trouble.code not in _DEAD:
            return
        self._strikes += 1
        if self._strikes >= _STRIKES:
            self._rest("host_down", f"{self.name} is down: {trouble.detail}", _DOWN_S)

    def _pause(self, trouble: Trouble) -> None:
        wait = trouble.wait_s or 0.0
        if wait > _LONGEST_PAUSE_S:
            self._rest("host_busy", f"{self.name} wants to be left alone for {wait:.0f} s", wait)
        else:
            self._next_start = max(self._next_start, time.monotonic() + wait)

    def _rest(self, code: str, detail: str, seconds: float) -> None:
        self._down = (code, detail)
        self._down_until = time.monotonic() + seconds


class Hosts:
    """The hosts that were asked lately."""

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self._hosts: dict[str, Host] = {}

    def of(self, url: URL) -> Host:
        """An address's host; a long list may hold millions of them, so that idle ones are forgotten."""
        origin = f"{url.scheme}://{url.host_port_subcomponent}"
        found = self._hosts.get(origin)
        if found is None:
            if len(self._hosts) >= _MOST_HOSTS:
                self._hosts = {name: host for name, host in self._hosts.items() if host.users}
            found = self._hosts[origin] = Host(origin, self._config)
        return found
