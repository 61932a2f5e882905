"""What the records add up to: for each key its attempt, its requests and its end; and the account of them all.

The same records in the same order give the same book on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field, replace

from vlmdata.captioning.journal.records import Ask, End, Open, Record


@dataclass(frozen=True)
class Claim:
    """A request that was written down and has no end yet."""

    until: float
    reserved: int
    writer: str
    batch: str | None = None


@dataclass
class Entry:
    """One key: its present attempt."""

    attempt: int = 1
    requests: int = 0
    open: dict[int, Claim] = field(default_factory=dict)
    end: End | None = None

    @property
    def answered(self) -> bool:
        """There is a text; it stays."""
        return self.end is not None and self.end.text is not None

    @property
    def closed(self) -> bool:
        """No further request of this attempt makes sense."""
        return self.end is not None and (self.answered or self.end.final)

    def copy(self) -> Entry:
        """One that can be changed on its own."""
        return replace(self, open=dict(self.open))


@dataclass
class Account:
    """Sums over all requests of a dataset: requests sent or about to be, nanodollars, tokens.

    `reserved` is what open requests may cost. A crash leaves it open, and so it stays spent.
    """

    requests: int = 0
    settled: int = 0
    reserved: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    answers: int = 0
    answer_seconds: float = 0.0

    @property
    def spent(self) -> int:
        """The most that can have been spent so far, nanodollars."""
        return self.settled + self.reserved


class Book:
    """Keys and the account; `apply` is the only way to change either."""

    def __init__(self, entries: MutableMapping[str, Entry] | None = None, account: Account | None = None) -> None:
        self.entries: MutableMapping[str, Entry] = {} if entries is None else entries
        self.account = account or Account()

    def draft(self) -> Book:
        """A book that starts as this one; what is applied to it leaves this one as it is."""
        return Book(_Overlay(self.entries), replace(self.account))

    def entry(self, key: str) -> Entry:
        """What is known of a key; an empty entry if nothing is."""
        return self.entries.get(key) or Entry()

    def apply(self, record: Record) -> None:
        """Take in the next record of the log."""
        entry = self.entries.setdefault(record.key, Entry())
        if isinstance(record, Ask):
            self._ask(entry, record)
        elif isinstance(record, End):
            self._end(entry, record)
        elif record.attempt > entry.attempt:
            self._open(entry, record)

    def _ask(self, entry: Entry, ask: Ask) -> None:
        claim = Claim(ask.until, ask.reserved, ask.writer, ask.batch)
        before = entry.open.get(ask.request)
        entry.open[ask.request] = claim
        self.account.reserved += claim.reserved - (before.reserved if before else 0)
        if before is None:
            entry.requests = max(entry.requests, ask.request)
            self.account.requests += 1

    def _end(self, entry: Entry, end: End) -> None:
        if end.attempt != entry.attempt:
            return
        claim = entry.open.get(end.request)
        # Ended twice, by two that took it up after a crash: the money was one request's.
        if claim is None or claim.batch != end.batch:
            return
        del entry.open[end.request]
        if end.unsent:
            self._take_back(entry, claim, end)
            return
        self._settle(claim, end)
        if not entry.answered:
            entry.end = end

    def _take_back(self, entry: Entry, claim: Claim, end: End) -> None:
        self.account.reserved -= claim.reserved
        self.account.requests -= 1
        if end.request == entry.requests:
            entry.requests -= 1

    def _settle(self, claim: Claim, end: End) -> None:
        account = self.account
        account.reserved -= claim.reserved
        account.settled += claim.reserved if end.cost is None else end.cost
        account.input_tokens += end.input_tokens or 0
        account.output_tokens += end.output_tokens or 0
        if end.text is not None:
            account.answers += 1
            account.answer_seconds += end.seconds

    def _open(self, entry: Entry, record: Open) -> None:
        # What the last attempt left open was spent; nobody will settle it.
        self.account.reserved -= sum(claim.reserved for claim in entry.open.values())
        self.account.settled += sum(claim.reserved for claim in entry.open.values())
        entry.attempt, entry.requests, entry.open, entry.end = record.attempt, 0, {}, None


class _Overlay(MutableMapping[str, Entry]):
    """Entries that are copied when they are first looked at."""

    def __init__(self, below: MutableMapping[str, Entry]) -> None:
        self._below = below
        self._mine: dict[str, Entry] = {}

    def __getitem__(self, key: str) -> Entry:
        if key not in self._mine:
            self._mine[key] = self._below[key].copy()
        return self._mine[key]

    def __setitem__(self, key: str, entry: Entry) -> None:
        self._mine[key] = entry

    def __delitem__(self, key: str) -> None:
        raise TypeError("a book forgets nothing")

    def __iter__(self) -> Iterator[str]:
        return iter(self._mine.keys() | self._below.keys())

    def __len__(self) -> int:
        return len(self._mine.keys() | self._below.keys())
