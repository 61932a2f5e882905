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
from vlmdata.captioning.journal.grants import Grant, Granted, Limits, Wish, judge, unsent
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.journal.records import Ask, End, Open, Record
from vlmdata.captioning.journal.writer import this_writer

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
        self._mine_open = 0

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
            self._log.load(wanted)
            entries = self._log.book.entries
            return {key: entries[key].copy() for key in wanted if key in entries}

        return await asyncio.get_running_loop().run_in_executor(self._thread, look)

    async def claim(self, wish: Wish) -> Grant:
        """Write a request down, unless its key has its end; waits while somebody else's is under way."""
        grant = await self._wait(_Waiting(wish, (), self._future()))
        if grant is None:
            raise RuntimeError("a wish was not decided")
        return grant

    async def settle(self, end: End) -> None:
        """Write down how a request of ours ended."""
        await self._wait(_Waiting(None, (end,), self._future()))

    def settle_later(self, end: End) -> None:
        """The same from where nothing can be waited for."""
        self._join(_Waiting(None, (end,), self._future()))

    async def open_attempts(self, keys: Iterable[str]) -> int:
        """Another attempt for each key whose last one failed; returns for how many."""
        entries = await self.find(keys)
        failed = [key for key, entry in entries.items() if not entry.answered]
        records = [Open(key, entries[key].attempt + 1) for key in failed]
        if records:
            await self._wait(_Waiting(None, records, self._future()))
        return len(records)

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
                if not one.future.done():
                    one.future.set_exception(error)
            return
        for one in batch:
            self._mine_open += isinstance(one.grant, Granted) - sum(isinstance(record, End) for record in one.records)
            if one.wish is not None and one.grant is None:
                self._held_back.append(one)
            elif not one.future.done():
                one.future.set_result(one.grant)
            elif one.wish is not None and isinstance(one.grant, Granted):
                # Who wished is gone: nothing was sent.
                self._queue.append(_Waiting(None, (unsent(one.wish.key, one.grant),), self._future()))

    def _append(self, batch: list[_Waiting], refresh: bool) -> None:
        if refresh:
            self._log.refresh()
        self._log.load({one.wish.key for one in batch if one.wish} | {r.key for one in batch for r in one.records})
        self._log.append(lambda book: self._decide(book, batch))

    def _decide(self, book: Book, batch: list[_Waiting]) -> list[Record]:
        """Ends first: they free money that wishes may be granted from."""
        records: list[Record] = []
        for one in batch:
            for record in one.records:
                book.apply(record)
                records.append(record)
        under_way = self._mine_open > sum(isinstance(record, End) for record in records)
        now = time.time()
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
