"""Whether a request may be sent: what the book says of its key and of the money, and nothing else."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from vlmdata.captioning.journal.book import Account, Book, Entry
from vlmdata.captioning.journal.records import End, Open
from vlmdata.captioning.journal.writer import is_gone


@dataclass(frozen=True)
class Limits:
    """Hard bounds of a dataset's account; null: none. Nanodollars."""

    requests: int | None = None
    cost: int | None = None

    def allow(self, account: Account, reserve: int) -> bool:
        """Whether one more request, at its worst, stays within both."""
        few = self.requests is None or account.requests < self.requests
        return few and (self.cost is None or account.spent + reserve <= self.cost)


@dataclass(frozen=True)
class Granted:
    """This request is ours to send, before `until`."""

    attempt: int
    request: int
    until: float


@dataclass(frozen=True)
class Finished:
    """Nothing is to be sent: the key has its end, or its attempt has no request left."""

    entry: Entry


@dataclass(frozen=True)
class OverBudget:
    """The next request could pass a limit."""

    account: Account


@dataclass(frozen=True)
class UnderWay:
    """Somebody else is asking, and this wish does not wait; or a batch is, which nobody waits for."""


Grant = Granted | Finished | OverBudget | UnderWay


@dataclass(frozen=True)
class Wish:
    """A request that somebody wants to send: its worst cost, how long it may take, the most requests of an attempt.

    In a batch it is one of many that are decided before any is sent, and so waits for nothing.
    """

    key: str
    reserve: int
    patience_s: float
    most: int
    batch: str | None = None


def judge(book: Book, wish: Wish, limits: Limits, now: float, *, under_way: bool) -> Grant | None:
    """What becomes of a wish; None: not to be said yet. `under_way`: requests of the wisher's own have no end yet."""
    entry = book.entry(wish.key)
    if entry.closed:
        return Finished(entry.copy())
    if wish.batch is None and _is_in_a_batch(entry, now):
        return UnderWay()
    if _is_asked(entry, now):
        return UnderWay() if wish.batch else None
    if entry.requests >= wish.most:
        return Finished(entry.copy())
    if wish.batch is None and entry.end is not None and (entry.end.not_before or 0.0) > now:
        # Whoever heard it waits by itself; others have it from here.
        return None
    if limits.allow(book.account, wish.reserve):
        return Granted(entry.attempt, entry.requests + 1, now + wish.patience_s)
    # What is under way may cost less than was set aside for it.
    return None if under_way and not wish.batch else OverBudget(replace(book.account))


def may_open(book: Book, record: Open, now: float) -> bool:
    """Whether another attempt still makes sense: others may have answered since it was wanted, or be asking now."""
    entry = book.entry(record.key)
    return record.attempt > entry.attempt and not entry.answered and not _is_asked(entry, now)


def _is_asked(entry: Entry, now: float) -> bool:
    return any(
        claim.until > now and (claim.batch is not None or not is_gone(claim.writer)) for claim in entry.open.values()
    )


def _is_in_a_batch(entry: Entry, now: float) -> bool:
    """A batch goes on without who submitted it, for as long as a day."""
    return any(claim.until > now and claim.batch is not None for claim in entry.open.values())


def unsent(key: str, granted: Granted, batch: str | None = None) -> End:
    """The end of a request that was written down and never sent: it costs nothing and does not count."""
    return End(
        key=key,
        attempt=granted.attempt,
        request=granted.request,
        text=None,
        failure=None,
        final=False,
        status=None,
        message=None,
        input_tokens=None,
        output_tokens=None,
        cost=0,
        seconds=0.0,
        at=time.time(),
        unsent=True,
        batch=batch,
    )
