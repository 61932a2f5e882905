"""One process's way to the journal: many that wait at once are written down in one segment.

All of it runs on one event loop; the log is touched on one thread of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from vlmdata.captioning.journal.book import Account, Book, Entry
from vlmdata.captioning.journal.grants import Grant, Granted, Limits, Wish, judge, may_open, unsent
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.journal.records import Ask, End, Open, Record
from vlmdata.captioning.journal.writer import this_writer

_Request = tuple[str, int, int]
"""Key, attempt, number: what names a request."""

_LOOK_AGAIN_S = 0.25
_GATHER_S = 0.002


@dataclass
class _Waiting:
    wish: Wish | None
    records: Sequence[Record]
    future: asyncio.Future[Grant | None]
    grant: Grant | None = field(default=None)


class Journal:
    """Grants requests and takes in their ends. Everything that it returns is durable."""

    def __init__(self, log: Log, limits: Limits) -> None:
        self._log = log
        self._limits = limits
        self._writer = this_writer()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._queue: list[_Waiting] = []
        self._held_back: list[_Waiting] = []
        self._joined = asyncio.Event()
        self._committing: asyncio.Task[None] | None = None
        # Requests of ours without an end, and until when they are waited for.
        self._flying: dict[_Request, float] = {}

    @property
    def account(self) -> Account:
        """The dataset's account, as far as this process has seen it."""
        return self._log.book.account

    def limit(self, limits: Limits) -> None:
        """Bounds from now on: a later run of this process may have others."""
        self._limits = limits

    async def find(self, keys: Iterable[str]) -> dict[str, Entry]:
        """What is known of keys, others' newest news included."""
        wanted = list(keys)

        def look() -> dict[str, Entry]:
            self._log.begin_again_if_gone()
            self._log.refresh()
            return self._log.find(wanted)

        return await asyncio.get_running_loop().run_in_executor(self._thread, look)

    async def claim(self, wish: Wish) -> Grant:
        """Write a request down, unless its key has its end; waits while somebody else's is under way."""
        waiting = _Waiting(wish, (), self._future())
        try:
            grant = await self._wait(waiting)
        except asyncio.CancelledError:
            # Granted in the same moment: the future took the grant, and nobody takes it from there.
            if not waiting.future.cancelled() and waiting.grant is not None:
                self._nobody_sends(waiting)
            raise
        if grant is None:
            raise RuntimeError("a wish was not decided")
        return grant

    async def settle(self, end: End) -> None:
        """Write down how a request of ours ended."""
        await self.settle_later(end)

    def settle_later(self, end: End) -> asyncio.Future[Grant | None]:
        """The same from where nothing can be waited for: it is done when the future is, and needs nobody to wait."""
        waiting = _Waiting(None, (end,), self._future())
        # If the store refuses, what was set aside stays spent; who does not wait need not hear of it.
        waiting.future.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._join(waiting)
        return waiting.future

    async def open_attempts(self, keys: Iterable[str]) -> int:
        """Another attempt for each key whose last one failed; returns for how many."""
        entries = await self.find(keys)
        wanted = [Open(key, entry.attempt + 1) for key, entry in entries.items() if not entry.answered]
        if not wanted:
            return 0
        await self._wait(_Waiting(None, wanted, self._future()))
        now = await self.find([record.key for record in wanted])
        return sum(now[record.key].attempt >= record.attempt for record in wanted)

    def _future(self) -> asyncio.Future[Grant | None]:
        return asyncio.get_running_loop().create_future()

    async def _wait(self, waiting: _Waiting) -> Grant | None:
        self._join(waiting)
        return await waiting.future

    def _join(self, waiting: _Waiting) -> None:
        self._queue.append(waiting)
        self._joined.set()
        if self._committing is None or self._committing.done():
            self._committing = asyncio.get_running_loop().create_task(self._commit())

    async def _commit(self) -> None:
        """Write until nobody waits; what cannot be decided yet is looked at again a little later."""
        while self._queue or self._held_back:
            alone = not self._queue
            if alone:
                await self._news()
            # A segment for each of a few that come together would cost more than they wait here.
            await asyncio.sleep(_GATHER_S)
            # Who wished may be gone; what has ended has ended, whoever waits to hear that it is written.
            batch = [one for one in (*self._queue, *self._held_back) if one.records or not one.future.cancelled()]
            self._queue, self._held_back = [], []
            await self._write(batch, refresh=alone)

    async def _news(self) -> None:
        """Until somebody joins, but not for long: others write, too."""
        self._joined.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_AGAIN_S):
                await self._joined.wait()

    async def _write(self, batch: list[_Waiting], refresh: bool) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._append, batch, refresh)
        except Exception as error:
            # Whoever waits has to know, whatever it was; it is raised again there.
            for one in batch:
                self._landed(one)
                if not one.future.done():
                    one.future.set_exception(error)
            return
        for one in batch:
            self._landed(one)
            # A batch's requests may be under way for a day: no other wish waits for their money.
            if one.wish is not None and one.wish.batch is None and isinstance(one.grant, Granted):
                self._flying[one.wish.key, one.grant.attempt, one.grant.request] = one.grant.until
            if one.wish is not None and one.grant is None:
                self._held_back.append(one)
            elif not one.future.done():
                one.future.set_result(one.grant)
            else:
                self._nobody_sends(one)

    def _landed(self, one: _Waiting) -> None:
        for request in _ended(one.records):
            self._flying.pop(request, None)

    def _nobody_sends(self, one: _Waiting) -> None:
        """Who wished is gone; what was granted, if anything was, is given back."""
        if one.wish is not None and isinstance(one.grant, Granted):
            self.settle_later(unsent(one.wish.key, one.grant))

    def _append(self, batch: list[_Waiting], refresh: bool) -> None:
        if refresh:
            self._log.refresh()
        self._log.load({one.wish.key for one in batch if one.wish} | {r.key for one in batch for r in one.records})
        self._log.append(lambda book: self._decide(book, batch))

    def _decide(self, book: Book, batch: list[_Waiting]) -> list[Record]:
        """Ends first: they free money that wishes may be granted from."""
        now = time.time()
        records: list[Record] = []
        for record in (record for one in batch for record in one.records):
            if not isinstance(record, Open) or may_open(book, record, now):
                book.apply(record)
                records.append(record)
        ended = _ended(records)
        under_way = any(until > now and request not in ended for request, until in self._flying.items())
        for one in batch:
            if one.wish is None:
                continue
            one.grant = judge(book, one.wish, self._limits, now, under_way=under_way)
            if isinstance(one.grant, Granted):
                under_way = True
                ask = self._ask(one.wish, one.grant)
                book.apply(ask)
                records.append(ask)
        return records

    def _ask(self, wish: Wish, granted: Granted) -> Ask:
        return Ask(wish.key, granted.attempt, granted.request, granted.until, wish.reserve, self._writer, wish.batch)


def _ended(records: Iterable[Record]) -> set[_Request]:
    return {(record.key, record.attempt, record.request) for record in records if isinstance(record, End)}
