"""What is settled is found again, however the tables were merged; a snapshot or table that is damaged is said."""

from __future__ import annotations

import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdata import layout
from vlmdata.captioning.journal import tables as tables_module
from vlmdata.captioning.journal.book import Entry
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.journal.records import Ask, End, Record
from vlmdata.captioning.journal.tables import Tables
from vlmdata.errors import StoreError
from vlmdata.store import LocalStore

FOLDER = "set/tables"
FAR = 2_000_000_000_000.0


def key(number: int) -> str:
    """Keys are hashes: they differ from their first digits on."""
    return sha256(str(number).encode()).hexdigest()[:32]


def settled(number: int, said: str = "A cat.", attempt: int = 1, requests: int = 1) -> tuple[str, Entry]:
    end = End(key(number), attempt, requests, said, None, False, 200, None, 90, 7, 5, 0.5, 1.5, sent=(64, 48, 999, 80))
    return key(number), Entry(attempt, requests, end=end)


def as_read(entry: Entry) -> Entry:
    """JSON and Arrow know lists, not tuples."""
    assert entry.end is not None
    sent = None if entry.end.sent is None else tuple(entry.end.sent)
    return Entry(entry.attempt, entry.requests, entry.open, End(**{**vars(entry.end), "sent": sent}))


def found(store: LocalStore, paths: tuple[str, ...], numbers: range) -> dict[str, Entry]:
    """By a process that begins now."""
    return {k: as_read(e) for k, e in Tables(store, FOLDER, paths).find([key(n) for n in numbers]).items()}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


@settings(max_examples=40)
@given(st.lists(st.dictionaries(st.integers(0, 30), st.integers(0, 9), max_size=12), max_size=8), st.integers(1, 40))
def test_of_a_key_that_came_several_times_the_newest_counts(batches: list[dict[int, int]], largest: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables_module, "_LARGEST", largest)
        patch.setattr(tables_module, "_ROW_GROUP", 4)
        tables, expected = Tables(LocalStore(folder), FOLDER, ()), {}
        for batch in batches:
            entries = [settled(number, f"take {said}", requests=1 + said % 4) for number, said in batch.items()]
            paths = tables.with_new(entries)
            tables = Tables(LocalStore(folder), FOLDER, paths, known=tables)
            expected.update(dict(entries))
        assert found(LocalStore(folder), tables.paths, range(35)) == expected
        assert {k: as_read(e) for k, e in tables.find(list(expected)).items()} == expected


def test_a_row_is_rewritten_a_few_times_and_tables_stay_few(store: LocalStore) -> None:
    tables = Tables(store, FOLDER, ())
    for start in range(64):
        tables = Tables(store, FOLDER, tables.with_new([settled(start)]), known=tables)
        assert len(tables.paths) <= 1 + (start + 1).bit_length()
    rows = [pq.read_metadata(store.locate(path)).num_rows for path in tables.paths]
    assert sum(rows) == 64
    assert len(found(store, tables.paths, range(64))) == 64


def test_a_key_has_one_row_in_a_table(store: LocalStore) -> None:
    tables = Tables(store, FOLDER, ())
    for said in ("first", "second", "third"):
        tables = Tables(store, FOLDER, tables.with_new([settled(1, said), settled(2, said)]), known=tables)
    (path,) = tables.paths
    rows = pq.read_table(store.locate(path)).to_pylist()
    assert [(row["key"], row["text"]) for row in rows] == sorted([(key(1), "third"), (key(2), "third")])


def test_a_key_is_found_in_any_row_group(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_module, "_ROW_GROUP", 7)
    paths = Tables(store, FOLDER, ()).with_new([settled(number, f"number {number}") for number in range(100)])
    everything = found(store, paths, range(120))
    assert {k: e.end.text for k, e in everything.items() if e.end} == {key(n): f"number {n}" for n in range(100)}
    assert found(store, paths, range(100, 200)) == {}


def test_keys_that_begin_alike_are_told_apart(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_module, "_ROW_GROUP", 2)
    alike = ["0123456789abcdef" + f"{number:016x}" for number in range(9)]
    paths = Tables(store, FOLDER, ()).with_new([(one, settled(0)[1]) for one in alike[1::2]])
    assert set(Tables(store, FOLDER, paths).find(alike)) == set(alike[1::2])


def test_nothing_new_writes_nothing(store: LocalStore) -> None:
    assert Tables(store, FOLDER, ("one",)).with_new([]) == ("one",)
    assert store.list("set") == []


def test_what_has_no_end_is_not_settled(store: LocalStore) -> None:
    with pytest.raises(ValueError, match="nothing is settled"):
        Tables(store, FOLDER, ()).with_new([(key(1), Entry())])


def compacted(store: LocalStore) -> Log:
    """A log with a snapshot, one answer in it and one request under way."""
    log = Log(store, "set")
    one, two = key(1), key(2)
    records: list[Record] = [Ask(one, 1, 1, FAR, 10, "me"), Ask(two, 1, 1, FAR, 10, "me")]
    log.append(lambda book: records)
    log.append(lambda book: [End(one, 1, 1, "A cat.", None, False, 200, None, 90, 7, 5, 0.5, 1.5)])
    log.compact()
    return log


DAMAGE = [b"", b"{", b"5", b"null", b"[]", b"{}", b'{"upto": 1}', b"\xff",
          b'{"upto": 2, "account": {"loans": 1}, "open": {}, "tables": []}',
          b'{"upto": 2, "account": {}, "open": [], "tables": []}',
          b'{"upto": 2, "account": {}, "open": {"0": 1}, "tables": []}']  # fmt: skip


@pytest.mark.parametrize("data", DAMAGE)
def test_a_damaged_snapshot_is_said_and_the_log_stands_without_it(store: LocalStore, data: bytes) -> None:
    account = compacted(store).book.account
    (snapshot,) = store.list(layout.journal_snapshots("set"))
    store.replace(snapshot, data)
    with pytest.raises(StoreError, match=r"is damaged .* delete it") as caught:
        Log(store, "set")
    assert "\n" not in str(caught.value)
    store.delete(snapshot)
    log = Log(store, "set")
    assert log.book.account == account and log.book.entry(key(1)).answered and log.book.entry(key(2)).open


@pytest.mark.parametrize("harm", ["gone", "cut", "no parquet"])
def test_a_damaged_table_is_said_and_the_log_stands_without_it(store: LocalStore, harm: str) -> None:
    account = compacted(store).book.account
    (table,) = store.list(layout.journal_tables("set"))
    store.delete(table)
    if harm != "gone":
        store.replace(table, b"PAR1" if harm == "cut" else b"<html>")
    with pytest.raises(StoreError, match="is gone or damaged") as caught:
        Log(store, "set").load([key(1)])
    assert "\n" not in str(caught.value)
    for snapshot in store.list(layout.journal_snapshots("set")):
        store.delete(snapshot)
    log = Log(store, "set")
    assert log.book.account == account and log.book.entry(key(1)).answered


def test_a_snapshot_keeps_what_is_under_way_and_forgets_what_is_settled(store: LocalStore) -> None:
    log = compacted(store)
    for one in (log, Log(store, "set")):
        assert set(one.book.entries) == {key(2)}
        one.load([key(1), key(2), key(3)])
        assert set(one.book.entries) == {key(1), key(2)}
        assert one.book.entry(key(2)).open == log.book.entry(key(2)).open


def test_an_answer_that_comes_late_counts_over_a_failure_that_came_first(store: LocalStore) -> None:
    """A slow process is given up and its request is still open, while another's has failed meanwhile."""
    log, one = Log(store, "set"), key(1)
    asked: list[Record] = [Ask(one, 1, 1, 0.0, 10, "slow"), Ask(one, 1, 2, FAR, 10, "me")]
    log.append(lambda book: asked)
    log.append(lambda book: [End(one, 1, 2, None, "transient", False, 500, "tired", None, None, 0, 0.5, 1.5)])
    log.compact()
    for late in (Log(store, "set"), log):
        late.refresh()
        late.load([one])
        assert set(late.book.entry(one).open) == {1} or late is log
        late.append(lambda book: [End(one, 1, 1, "A cat.", None, False, 200, None, 90, 7, 5, 0.5, 1.5)])
        assert late.book.entry(one).answered and (late.book.account.settled, late.book.account.reserved) == (5, 0)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_whatever_a_server_says_it_used_is_kept(used: int, cost: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        end: Any = {**vars(settled(1)[1].end), "input_tokens": used, "output_tokens": used, "cost": cost}
        paths = Tables(LocalStore(folder), FOLDER, ()).with_new([(key(1), Entry(1, 1, end=End(**end)))])
        assert found(LocalStore(folder), paths, range(3)) == {key(1): Entry(1, 1, end=End(**end))}
