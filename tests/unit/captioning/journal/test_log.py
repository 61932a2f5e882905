"""The one order of records, when the store or another writer comes in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typing_extensions import Buffer

from vlmdata import layout
from vlmdata.captioning.journal import log as logs
from vlmdata.captioning.journal.book import Book
from vlmdata.captioning.journal.grants import Granted, unsent
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.journal.records import Ask, End, Open, Record
from vlmdata.errors import StoreError
from vlmdata.store import LocalStore

KEYS = [f"{number:032x}" for number in range(6)]
FAR = 2_000_000_000_000.0


class Forgetful(LocalStore):
    """Writes, and says that somebody else was first: an S3 client's repeated put, after the first answer was lost."""

    lost = 0

    def create(self, path: str, data: Buffer) -> bool:
        written = super().create(path, data)
        if written and self.lost:
            self.lost -= 1
            return False
        return written


@pytest.fixture
def store(tmp_path: Path) -> Forgetful:
    return Forgetful(str(tmp_path / "store"))


def asked(key: str, writer: str = "me", request: int = 1) -> Ask:
    return Ask(key, 1, request, FAR, 10, writer)


def answered(key: str, text: str = "A cat.", request: int = 1) -> End:
    return End(key, 1, request, text, None, False, 200, None, 90, 7, 3, 0.1, 0.0)


def written(*records: Record) -> Callable[[Book], list[Record]]:
    return lambda book: list(records)


def test_a_put_that_was_repeated_finds_its_own_segment(store: Forgetful) -> None:
    log, decisions = Log(store, "set"), []

    def decide(book: Book) -> list[Record]:
        decisions.append(book.entry(KEYS[0]).requests)
        return [asked(KEYS[0], request=book.entry(KEYS[0]).requests + 1)]

    store.lost = 1
    log.append(decide)
    assert decisions == [0], "it was written, and is not asked for once more"
    assert log.book.entry(KEYS[0]).requests == 1 == Log(store, "set").book.account.requests


def test_who_loses_decides_again_on_what_the_winner_wrote(store: Forgetful) -> None:
    first, second = Log(store, "set"), Log(store, "set")
    first.append(written(asked(KEYS[0]), asked(KEYS[1])))
    seen = []

    def decide(book: Book) -> list[Record]:
        seen.append(len(book.entries))
        return [asked(KEYS[2])]

    second.append(decide)
    assert seen == [0, 2]
    assert second.book.account.requests == 3


def test_nothing_decided_is_nothing_written(store: Forgetful) -> None:
    Log(store, "set").append(written())
    assert store.list("set") == []


def test_a_book_is_the_same_whichever_way_it_was_read(store: Forgetful, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SEGMENTS_BETWEEN_SNAPSHOTS", 3)
    writer = Log(store, "set")
    follower = Log(store, "set")
    for key in KEYS:
        writer.append(written(asked(key)))
        writer.append(written(answered(key, f"about {key}")))
    follower.refresh()
    late = Log(store, "set")
    for log in (writer, follower, late):
        log.load(KEYS)
        texts = [end.text if (end := log.book.entry(key).end) else None for key in KEYS]
        assert texts == [f"about {key}" for key in KEYS]
        assert log.book.account == writer.book.account
    assert len(store.list(layout.journal_snapshots("set"))) > 1


def test_the_log_goes_on_over_the_end_of_a_folder(store: Forgetful, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_SEGMENTS_A_FOLDER", 3)
    log = Log(store, "set")
    for key in KEYS:
        log.append(written(asked(key)))
        assert Log(store, "set").book.account.requests == log.book.account.requests
    assert Log(store, "set").book.account.requests == len(KEYS)


def test_a_damaged_segment_is_said_and_not_skipped(store: Forgetful) -> None:
    log = Log(store, "set")
    log.append(written(asked(KEYS[0])))
    log.append(written(answered(KEYS[0])))
    path = layout.journal_segment("set", 2)
    store.replace(path, store.get(path)[:-20])
    with pytest.raises(StoreError, match=r"000000002\.jsonl: is damaged") as caught:
        Log(store, "set")
    assert "\n" not in str(caught.value)


def test_an_end_of_nothing_that_is_open_changes_nothing() -> None:
    book = Book()
    book.apply(asked(KEYS[0]))
    book.apply(answered(KEYS[0]))
    before = (book.entry(KEYS[0]).copy(), book.account.spent, book.account.answers)
    for late in (answered(KEYS[0], "Another."), unsent(KEYS[0], Granted(1, 1, FAR)), answered(KEYS[0], "B", 3)):
        book.apply(late)
        assert (book.entry(KEYS[0]), book.account.spent, book.account.answers) == before


def test_what_is_given_back_late_leaves_another_batch_s_claim() -> None:
    """Two take up a batch that never arrived; the second gives it back when its numbers are another batch's."""
    book, granted = Book(), Granted(1, 1, FAR)
    book.apply(replace(asked(KEYS[0]), batch="first"))
    book.apply(unsent(KEYS[0], granted, "first"))
    book.apply(replace(asked(KEYS[0]), batch="second"))
    for late in (unsent(KEYS[0], granted, "first"), unsent(KEYS[0], granted)):
        book.apply(late)
        assert book.entry(KEYS[0]).open[1].batch == "second" and book.account.requests == 1
    book.apply(replace(answered(KEYS[0]), batch="second"))
    assert book.entry(KEYS[0]).answered and (book.account.reserved, book.account.settled) == (0, 3)


def test_an_answer_stays_whatever_is_heard_of_other_requests() -> None:
    book = Book()
    for record in (asked(KEYS[0]), asked(KEYS[0], request=2), answered(KEYS[0], request=2)):
        book.apply(record)
    failed = End(KEYS[0], 1, 1, None, "permanent", True, 400, "no", None, None, 0, 0.1, 0.0)
    book.apply(failed)
    entry = book.entry(KEYS[0])
    assert entry.answered and entry.requests == 2 and not entry.open
    assert (book.account.reserved, book.account.settled) == (0, 3)


def test_an_old_wish_for_another_attempt_changes_nothing() -> None:
    book = Book()
    book.apply(Open(KEYS[0], 3))
    book.apply(Open(KEYS[0], 2))
    book.apply(Open(KEYS[0], 3))
    assert book.entry(KEYS[0]).attempt == 3
