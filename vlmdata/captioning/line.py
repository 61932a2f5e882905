"""What all shards of a process share when they ask one endpoint: a connection pool, its limits, and its health.

It lives on the process's one event loop, so that `concurrency` means what it
says however many shards are captioned at once.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache
from typing import Any, Literal, TypeVar

import httpx

from vlmdata.captioning.endpoint import is_loopback
from vlmdata.captioning.journal.grants import Limits
from vlmdata.captioning.journal.journal import Journal
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.pace import Pace, Shared
from vlmdata.captioning.provider import Answer, Fault
from vlmdata.checkpoint import Dataset
from vlmdata.config import CaptionConfig
from vlmdata.errors import UserError

T = TypeVar("T")

Trouble = Literal["key_refused", "never_there", "refuses_all", "gone"]
"""Why nothing is gained by asking on."""

_CONNECT_TIMEOUT_S = 10.0
_LEAST_PATIENCE = 32
_CONNECTIONS = 8
"""Of one pool: httpcore looks at every connection for every other one each time that a request begins or ends."""


class Health:
    """Whether it makes sense to ask on. Touched by the event loop's thread alone."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._failed_in_a_row = 0
        self.reached = False
        self.answered = False

    def note(self, end: Answer | Fault) -> Trouble | None:
        """Take in how one picture ended after all its retries."""
        if isinstance(end, Answer) or end.failure == "refused":
            self.answered, self._failed_in_a_row = True, 0
            return None
        if end.blame == "key":
            return "key_refused"
        if end.blame == "endpoint" and end.status is None and not self.reached:
            return "never_there"
        if end.failure == "transient" or not self.answered:
            self._failed_in_a_row += 1
        if self._failed_in_a_row < self._patience:
            return None
        return "refuses_all" if end.failure == "permanent" else "gone"

    def forgive(self) -> None:
        """A new round may find the endpoint well again."""
        self._failed_in_a_row = 0


class Line:
    """A process's only way to one endpoint."""

    def __init__(self, base_url: str, config: CaptionConfig, shared: Shared | None = None) -> None:
        pools = -(-config.concurrency // _CONNECTIONS)
        certificates = httpx.create_ssl_context()
        self._pools = [_client(base_url, certificates) for _ in range(pools)]
        self._busy = [0] * pools
        self.pace = Pace(config, shared)
        # Pictures encoded and waiting for their turn or a pause to end: this bounds memory.
        self.room = asyncio.Semaphore(2 * config.concurrency)
        self.health = Health(max(_LEAST_PATIENCE, 2 * config.concurrency))
        self.halted = asyncio.Event()
        self.halt_reason = ""
        self.halt_error: UserError | None = None
        self._rounds = 0

    @contextmanager
    def http(self) -> Iterator[httpx.AsyncClient]:
        """A pool of connections with room for one more request."""
        number = self._busy.index(min(self._busy))
        self._busy[number] += 1
        try:
            yield self._pools[number]
        finally:
            self._busy[number] -= 1

    @asynccontextmanager
    async def round(self) -> AsyncIterator[None]:
        """While at least one shard is asking; a halt holds for all of them, and for none that comes after."""
        if not self._rounds:
            self.halted.clear()
            self.health.forgive()
            self.pace.resume()
        self._rounds += 1
        try:
            async with self.pace.shift():
                yield
        finally:
            self._rounds -= 1

    def halt(self, reason: str, error: UserError | None) -> None:
        """Let no further request start; `error` is what the user has to put right, if anything."""
        self.halt_reason, self.halt_error = reason, error
        self.halted.set()
        self.pace.halt()

    async def sleep(self, seconds: float) -> None:
        """Wait, but no longer than until the line is halted."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.halted.wait()


def _client(base_url: str, certificates: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        verify=certificates,
        # A request's time limit covers all of it, so that a server which drips bytes does not escape it.
        timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S),
        limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
        follow_redirects=False,
        trust_env=not is_loopback(base_url),
    )


class _Process:
    """The threads that encode pictures, and the lines of one process."""

    def __init__(self) -> None:
        self.encoders = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="caption-encode")
        self._lines: dict[tuple[object, ...], Line] = {}
        self._journals: dict[tuple[str, str], Journal] = {}

    def line(self, base_url: str, config: CaptionConfig, shared: Shared | None = None) -> Line:
        """Called on the loop's thread, which makes it safe without a lock."""
        key = (base_url, config.concurrency, config.requests_per_minute, config.tokens_per_minute, shared)
        if key not in self._lines:
            self._lines[key] = Line(base_url, config, shared)
        return self._lines[key]

    async def journal(self, dataset: Dataset, limits: Limits | None = None) -> Journal:
        """The dataset's journal, with these limits from now on; none: with those that it has."""
        key = (dataset.store.url, dataset.name)
        if key not in self._journals:
            log = await asyncio.get_running_loop().run_in_executor(self.encoders, Log, dataset.store, dataset.name)
            self._journals.setdefault(key, Journal(log, limits or Limits()))
        if limits is not None:
            self._journals[key].limit(limits)
        return self._journals[key]


_making = threading.Lock()


@lru_cache(maxsize=1)
def _process(pid: int) -> _Process:
    return _Process()


def process() -> _Process:
    """This process's own; a forked child gets a new one, as threads do not survive a fork."""
    with _making:
        return _process(os.getpid())


async def on_a_thread(function: Callable[..., T], *args: Any) -> T:
    """What blocks, beside the loop."""
    return await asyncio.get_running_loop().run_in_executor(process().encoders, function, *args)
