"""The one order of all records of a dataset, in its object store.

Segments are numbered without gaps and put conditionally: who wins number n
has seen every segment before it, so what it decided holds for everybody; who
loses reads the winner's and decides again. Nothing is overwritten or deleted.
From time to time a snapshot says what the segments up to a number add up to,
so that nobody has to read them all.

<dataset>/02_captioned/journal/log/<thousand>/<number>.jsonl
<dataset>/02_captioned/journal/snapshots/<number>.json
<dataset>/02_captioned/journal/tables/<hash>.parquet
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count

from vlmdata import layout
from vlmdata.captioning.journal.book import Book, Entry
from vlmdata.captioning.journal.records import Record, decode, encode
from vlmdata.captioning.journal.snapshots import Snapshot, newest_snapshot, write_snapshot
from vlmdata.captioning.journal.tables import Tables
from vlmdata.store import Store

SEGMENTS_BETWEEN_SNAPSHOTS = 256

Decide = Callable[[Book], list[Record]]
"""Given a book that it may change as it likes, the records that make it so."""


class Log:
    """One reader and writer of a dataset's log. Not for several threads at once."""

    def __init__(self, store: Store, dataset: str) -> None:
        self._store = store
        self._dataset = dataset
        self._begin()

    def _begin(self) -> None:
        self._snapshot = newest_snapshot(self._store, self._dataset)
        self._tables = Tables(self._store, layout.journal_tables(self._dataset), self._snapshot.tables)
        self.book = Book(dict(self._snapshot.open), self._snapshot.account)
        self._last = self._snapshot.upto
        self._catch_up()

    def begin_again_if_gone(self) -> None:
        """A person may have emptied the store in the middle of this process."""
        if self._last and not self._store.exists(self._path(self._last)):
            self._begin()

    def refresh(self) -> None:
        """Read what others have written since."""
        while (data := self._segment(self._last + 1)) is not None:
            self._take_in(data)

    def find(self, keys: Iterable[str]) -> dict[str, Entry]:
        """What is known of keys: copies, which the book does not keep."""
        wanted = list(dict.fromkeys(keys))
        here = {key: self.book.entries[key].copy() for key in wanted if key in self.book.entries}
        return {**self._tables.find([key for key in wanted if key not in here]), **here}

    def load(self, keys: Iterable[str]) -> None:
        """Have these keys in the book, if anybody ever asked for them."""
        unknown = [key for key in keys if key not in self.book.entries]
        self.book.entries.update(self._tables.find(unknown))

    def append(self, decide: Decide) -> None:
        """Write what `decide` decides, as the next segment; it is asked again if others were first.

        Raises:
            StoreError: the store refuses.
        """
        while True:
            records = decide(self.book.draft())
            if not records:
                return
            if self._create(encode(records)):
                self._apply(records)
                self._snapshot_if_due()
                return
            self.refresh()

    def _create(self, data: bytes) -> bool:
        """Put the next segment. A put whose answer was lost is repeated by the client, and finds its own object."""
        number = self._last + 1
        return self._store.create(self._path(number), data) or self._segment(number) == data

    def _catch_up(self) -> None:
        """Read the segments after the snapshot, a folder at a time."""
        for thousand in count(layout.journal_thousand(self._last + 1)):
            folder = layout.journal_folder(self._dataset, thousand)
            numbers = [int(name.removesuffix(".jsonl")) for name in self._store.children(folder)]
            if not numbers:
                return
            for number in sorted(numbers):
                # A gap in a listing that was made while others write: what follows comes with `refresh`.
                if number == self._last + 1 and (data := self._segment(number)) is not None:
                    self._take_in(data)

    def _path(self, number: int) -> str:
        return layout.journal_segment(self._dataset, number)

    def _segment(self, number: int) -> bytes | None:
        try:
            return self._store.get(self._path(number))
        except FileNotFoundError:
            return None

    def _take_in(self, data: bytes) -> None:
        self._apply(decode(data, self._store.locate(self._path(self._last + 1))))

    def _apply(self, records: Sequence[Record]) -> None:
        self.load({record.key for record in records})
        for record in records:
            self.book.apply(record)
        self._last += 1

    def _snapshot_if_due(self) -> None:
        if self._last - self._snapshot.upto >= SEGMENTS_BETWEEN_SNAPSHOTS:
            self.compact()

    def compact(self) -> None:
        """Write a snapshot of now, and forget what it holds: the book keeps what is under way."""
        settled, under_way = _parted(self.book.entries.items())
        tables = self._tables.with_new(settled)
        self._snapshot = Snapshot(self._last, self.book.account, under_way, tables)
        write_snapshot(self._store, self._dataset, self._snapshot)
        self._tables = Tables(self._store, layout.journal_tables(self._dataset), tables, known=self._tables)
        self.book = Book(dict(under_way), self.book.account)


def _parted(entries: Iterable[tuple[str, Entry]]) -> tuple[Sequence[tuple[str, Entry]], dict[str, Entry]]:
    settled, under_way = [], {}
    for key, entry in entries:
        if entry.open or entry.end is None:
            under_way[key] = entry
        else:
            settled.append((key, entry))
    return settled, under_way
