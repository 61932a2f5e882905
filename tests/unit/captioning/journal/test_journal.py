"""One process's journal: who waits together is written together, and whoever goes away leaves nothing open."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typing_extensions import Buffer

from vlmdata.captioning.journal.book import Book
from vlmdata.captioning.journal.grants import Finished, Grant, Granted, Limits, OverBudget, UnderWay, Wish
from vlmdata.captioning.journal.journal import Journal
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.journal.records import Ask, End
from vlmdata.errors import StoreError
from vlmdata.store import LocalStore

T = TypeVar("T")
KEYS = [f"{number:032x}" for number in range(40)]
MOST = 4
RESERVE = 100
PATIENCE_S = 20.0
FAR = 2_000_000_000_000.0
ELSEWHERE = "another-machine:1:1"


class Troubled(LocalStore):
    """A folder whose next writes meet with what `before` holds: each is called ahead of one `create`."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.before: list[Callable[[], object]] = []

    def create(self, path: str, data: Buffer) -> bool:
        if self.before:
            self.before.pop(0)()
        return super().create(path, data)


def refuse() -> None:
    raise StoreError("store = 'here': the disk is full")


@pytest.fixture
def store(tmp_path: Path) -> Troubled:
    return Troubled(tmp_path / "store")


def journal_in(store: LocalStore, limits: Limits | None = None) -> Journal:
    return Journal(Log(store, "set"), limits or Limits())


def wish(key: str, reserve: int = RESERVE, batch: str | None = None) -> Wish:
    return Wish(key, reserve, 60.0, MOST, batch)


def ended(key: str, grant: Grant, text: str | None = "A cat.", cost: int | None = 1, final: bool = False) -> End:
    assert isinstance(grant, Granted), grant
    failure = None if text else "permanent" if final else "transient"
    return End(
        key, grant.attempt, grant.request, text, failure, final, 200, None, 1, 1, cost, 0.1, 0.0  # type: ignore[arg-type]
    )  # fmt: skip


def segments(store: LocalStore) -> int:
    return len(store.list("set/02_captioned/journal/log"))


def account(store: LocalStore) -> Any:
    """As a process sees it that begins now."""
    return Log(store, "set").book.account


def run(story: Awaitable[T]) -> T:
    async def within() -> T:
        return await asyncio.wait_for(story, PATIENCE_S)

    return asyncio.run(within())


async def idle(journal: Journal) -> None:
    """Until all that was handed in is written."""
    while journal._queue or (journal._committing and not journal._committing.done()):
        await asyncio.sleep(0.001)


def test_who_waits_at_once_is_written_in_one_segment(store: Troubled) -> None:
    async def story() -> None:
        journal = journal_in(store)
        grants = await asyncio.gather(*(journal.claim(wish(key)) for key in KEYS))
        assert segments(store) == 1
        await asyncio.gather(*(journal.settle(ended(key, grant)) for key, grant in zip(KEYS, grants, strict=True)))
        assert segments(store) == 2

    run(story())
    assert (account(store).requests, account(store).settled, account(store).reserved) == (len(KEYS), len(KEYS), 0)


def test_a_grant_is_durable_before_it_is_heard_of(store: Troubled) -> None:
    async def story() -> None:
        await journal_in(store).claim(wish(KEYS[0]))
        assert (account(store).requests, account(store).reserved) == (1, RESERVE)

    run(story())


def test_an_answer_is_found_by_whoever_comes_later(store: Troubled) -> None:
    async def story() -> None:
        journal = journal_in(store)
        await journal.settle(ended(KEYS[0], await journal.claim(wish(KEYS[0]))))
        other = journal_in(store)
        assert (await other.find(KEYS))[KEYS[0]].answered
        again = await other.claim(wish(KEYS[0]))
        assert isinstance(again, Finished) and again.entry.end and again.entry.end.text == "A cat."

    run(story())


def cancelled_before_it_is_written(journal: Journal, store: Troubled, task: asyncio.Task[Grant]) -> None:
    task.cancel()


def cancelled_while_it_is_written(journal: Journal, store: Troubled, task: asyncio.Task[Grant]) -> None:
    loop, gone = asyncio.get_running_loop(), threading.Event()

    def leave() -> None:
        loop.call_soon_threadsafe(lambda: (task.cancel(), gone.set()))
        gone.wait(PATIENCE_S)

    store.before = [leave]


def cancelled_as_it_is_granted(journal: Journal, store: Troubled, task: asyncio.Task[Grant]) -> None:
    # Ahead of the task's own callback, which it adds when it begins to wait.
    journal._future = lambda: _watched(task)  # type: ignore[method-assign]


def _watched(task: asyncio.Task[Grant]) -> asyncio.Future[Grant | None]:
    future: asyncio.Future[Grant | None] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda _: task.cancel())
    return future


@pytest.mark.parametrize(
    "leave", [cancelled_before_it_is_written, cancelled_while_it_is_written, cancelled_as_it_is_granted]
)
def test_a_cancelled_wish_leaves_nothing_open(
    store: Troubled, leave: Callable[[Journal, Troubled, asyncio.Task[Grant]], None]
) -> None:
    async def story() -> None:
        journal = journal_in(store, Limits(requests=1))
        task = asyncio.create_task(journal.claim(wish(KEYS[0])))
        leave(journal, store, task)
        with pytest.raises(asyncio.CancelledError):
            await task
        await idle(journal)
        assert (account(store).requests, account(store).reserved) == (0, 0)
        vars(journal).pop("_future", None)
        assert await journal.claim(wish(KEYS[0])) == await _first(journal), "the one request is still there"

    run(story())


async def _first(journal: Journal) -> Granted:
    entry = (await journal.find([KEYS[0]]))[KEYS[0]]
    return Granted(1, 1, entry.open[1].until)


def test_a_cancelled_settlement_is_written_all_the_same(store: Troubled) -> None:
    async def story() -> None:
        journal = journal_in(store)
        grant = await journal.claim(wish(KEYS[0]))
        task = asyncio.create_task(journal.settle(ended(KEYS[0], grant)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await idle(journal)
        assert task.cancelled() and Log(store, "set").book.entry(KEYS[0]).answered

    run(story())


def test_a_wish_waits_for_the_one_that_asks_about_the_same_picture(store: Troubled) -> None:
    async def story() -> None:
        journal = journal_in(store)
        first = await journal.claim(wish(KEYS[0]))
        second = asyncio.create_task(journal.claim(wish(KEYS[0])))
        await journal.claim(wish(KEYS[1]))
        assert not second.done(), "others pass it"
        await journal.settle(ended(KEYS[0], first))
        assert isinstance(await second, Finished)

    run(story())


def test_a_wish_waits_for_another_machine(store: Troubled) -> None:
    other = Log(store, "set")
    other.append(lambda book: [Ask(KEYS[0], 1, 1, FAR, RESERVE, ELSEWHERE)])

    async def story() -> None:
        journal = journal_in(store)
        assert isinstance(await journal.claim(wish(KEYS[0], batch="one")), UnderWay), "in a batch nothing waits"
        task = asyncio.create_task(journal.claim(wish(KEYS[0])))
        await asyncio.sleep(0.05)
        assert not task.done()
        other.append(lambda book: [ended(KEYS[0], Granted(1, 1, FAR), text=None, final=True)])
        grant = await task
        assert isinstance(grant, Finished) and grant.entry.requests == 1

    run(story())


def test_a_server_that_wants_to_be_left_alone_is_so_by_whoever_did_not_hear_it(store: Troubled) -> None:
    async def story() -> None:
        first, second = journal_in(store), journal_in(store)
        grant = await first.claim(wish(KEYS[0]))
        due = time.time() + 0.3
        await first.settle(replace(ended(KEYS[0], grant, text=None), not_before=due))
        another = await second.claim(wish(KEYS[1]))
        assert isinstance(another, Granted) and time.time() < due, "nobody else's picture waits for it"
        again = await second.claim(wish(KEYS[0]))
        assert isinstance(again, Granted) and (again.attempt, again.request) == (1, 2) and time.time() >= due

    run(story())


def test_a_request_that_a_dead_process_left_open_is_not_waited_for(store: Troubled) -> None:
    Log(store, "set").append(lambda book: [Ask(KEYS[0], 1, 1, 1.0, RESERVE, ELSEWHERE)])

    async def story() -> None:
        grant = await journal_in(store).claim(wish(KEYS[0]))
        assert isinstance(grant, Granted) and grant.request == 2, "it may have been sent, so it counts"

    run(story())
    assert account(store).reserved == 2 * RESERVE


def test_a_wish_waits_for_money_that_may_come_back(store: Troubled) -> None:
    async def story() -> None:
        journal = journal_in(store, Limits(cost=RESERVE + 1))
        first = await journal.claim(wish(KEYS[0]))
        second = asyncio.create_task(journal.claim(wish(KEYS[1])))
        await asyncio.sleep(0.02)
        assert not second.done()
        await journal.settle(ended(KEYS[0], first, cost=1))
        assert isinstance(await second, Granted)
        third = asyncio.create_task(journal.claim(wish(KEYS[2])))
        await journal.settle(ended(KEYS[1], await second, cost=RESERVE))
        assert isinstance(await third, OverBudget)

    run(story())


def test_nobody_waits_for_money_that_another_process_set_aside(store: Troubled) -> None:
    Log(store, "set").append(lambda book: [Ask(KEYS[0], 1, 1, FAR, RESERVE, ELSEWHERE)])

    async def story() -> None:
        over = await journal_in(store, Limits(cost=RESERVE)).claim(wish(KEYS[1]))
        assert isinstance(over, OverBudget) and over.account.spent == RESERVE

    run(story())


def test_a_refusal_of_the_store_reaches_all_who_wait(store: Troubled) -> None:
    async def story() -> None:
        journal = journal_in(store)
        grant = await journal.claim(wish(KEYS[0]))
        store.before = [refuse]
        waiting = [journal.settle(ended(KEYS[0], grant)), *(journal.claim(wish(key)) for key in KEYS[1:5])]
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [StoreError] * 5
        assert isinstance(await journal.claim(wish(KEYS[1])), Granted), "the next may be lucky"

    run(story())
    assert account(store).reserved == 2 * RESERVE, "what could not be settled stays spent"


def test_a_settlement_that_the_store_refused_is_not_waited_for(store: Troubled) -> None:
    """It would hold back every later wish, as if its money might come back."""

    async def story() -> None:
        journal = journal_in(store, Limits(cost=RESERVE))
        grant = await journal.claim(wish(KEYS[0]))
        store.before = [refuse]
        with pytest.raises(StoreError):
            await journal.settle(ended(KEYS[0], grant))
        assert isinstance(await journal.claim(wish(KEYS[1])), OverBudget)

    run(story())


def test_what_another_run_left_open_and_this_one_settles_is_not_counted_as_this_ones(store: Troubled) -> None:
    """A batch is taken up by whoever comes; the money of this one's own requests is waited for all the same."""
    Log(store, "set").append(lambda book: [Ask(KEYS[0], 1, 1, FAR, RESERVE, ELSEWHERE, "token")])

    async def story() -> None:
        journal = journal_in(store, Limits(cost=RESERVE + 2))
        await journal.settle(replace(ended(KEYS[0], Granted(1, 1, FAR), cost=1), batch="token"))
        mine = await journal.claim(wish(KEYS[1]))
        waiting = asyncio.create_task(journal.claim(wish(KEYS[2])))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await journal.settle(ended(KEYS[1], mine, cost=1))
        assert isinstance(await waiting, Granted)

    run(story())


def test_limits_of_a_later_run_hold_from_then_on(store: Troubled) -> None:
    async def story() -> None:
        journal = journal_in(store, Limits(requests=0))
        assert isinstance(await journal.claim(wish(KEYS[0])), OverBudget)
        journal.limit(Limits(requests=1))
        assert isinstance(await journal.claim(wish(KEYS[0])), Granted)

    run(story())


def test_a_store_that_was_emptied_meanwhile_begins_anew(store: Troubled) -> None:
    async def story() -> None:
        journal = journal_in(store)
        await journal.settle(ended(KEYS[0], await journal.claim(wish(KEYS[0]))))
        shutil.rmtree(store.root)
        assert await journal.find(KEYS) == {}
        assert isinstance(await journal.claim(wish(KEYS[0])), Granted)
        assert segments(store) == 1 == account(store).requests

    run(story())


def test_another_attempt_is_opened_for_what_failed_alone(store: Troubled) -> None:
    async def story() -> None:
        journal = journal_in(store)
        for key, text, final in ((KEYS[0], "A cat.", False), (KEYS[1], None, True), (KEYS[2], None, False)):
            await journal.settle(ended(key, await journal.claim(wish(key)), text, final=final))
        assert await journal.open_attempts(KEYS[:5]) == 2
        entries = await journal.find(KEYS[:5])
        assert {key: (entry.attempt, entry.requests) for key, entry in entries.items()} == {
            KEYS[0]: (1, 1), KEYS[1]: (2, 0), KEYS[2]: (2, 0),
        }  # fmt: skip
        assert entries[KEYS[0]].answered
        second = await journal.claim(wish(KEYS[1]))
        assert isinstance(second, Granted) and (second.attempt, second.request) == (2, 1)

    run(story())


def test_an_answer_that_came_while_another_attempt_was_wanted_stays(store: Troubled) -> None:
    other = Log(store, "set")

    async def story() -> None:
        journal = journal_in(store)
        await journal.settle(ended(KEYS[0], await journal.claim(wish(KEYS[0])), text=None))

        def answered_first() -> None:
            other.refresh()
            other.append(lambda book: [Ask(KEYS[0], 1, 2, FAR, RESERVE, ELSEWHERE)])
            other.append(lambda book: [ended(KEYS[0], Granted(1, 2, FAR), "A dog.")])

        store.before = [answered_first]
        assert await journal.open_attempts([KEYS[0]]) == 0
        end = (await journal.find([KEYS[0]]))[KEYS[0]].end
        assert end and end.text == "A dog."

    run(story())


def test_no_other_attempt_is_opened_while_somebody_asks(store: Troubled) -> None:
    """The answer that is on its way would belong to an attempt that is over: paid for, and lost."""
    other = Log(store, "set")
    other.append(lambda book: [Ask(KEYS[0], 1, 1, FAR, RESERVE, ELSEWHERE)])

    async def story() -> None:
        journal = journal_in(store)
        assert await journal.open_attempts([KEYS[0]]) == 0
        other.append(lambda book: [ended(KEYS[0], Granted(1, 1, FAR))])
        assert (await journal.find([KEYS[0]]))[KEYS[0]].answered

    run(story())


def test_what_is_found_is_a_copy(store: Troubled) -> None:
    async def story() -> None:
        journal = journal_in(store)
        await journal.claim(wish(KEYS[0]))
        (await journal.find([KEYS[0]]))[KEYS[0]].open.clear()
        assert (await journal.find([KEYS[0]]))[KEYS[0]].open

    run(story())


def test_a_draft_leaves_the_book_as_it_was() -> None:
    book = Book()
    book.apply(Ask(KEYS[0], 1, 1, FAR, RESERVE, ELSEWHERE))
    draft = book.draft()
    draft.apply(ended(KEYS[0], Granted(1, 1, FAR)))
    draft.apply(Ask(KEYS[1], 1, 1, FAR, RESERVE, ELSEWHERE))
    assert draft.account.spent == RESERVE + 1 and set(draft.entries) == {KEYS[0], KEYS[1]} and len(draft.entries) == 2
    assert book.account.spent == RESERVE and set(book.entries) == {KEYS[0]} and not book.entry(KEYS[0]).answered
    with pytest.raises(TypeError):
        del draft.entries[KEYS[0]]
