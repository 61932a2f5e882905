"""What is written down of a batch: of one who begins and one who gives up, one wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmdata.captioning.batch_claims import Batch, in_hand, under_way
from vlmdata.captioning.batch_records import BatchRecords
from vlmdata.captioning.journal.book import Claim, Entry
from vlmdata.captioning.journal.writer import this_writer
from vlmdata.checkpoint import Dataset
from vlmdata.errors import StoreError


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(str(tmp_path), "set")


def test_who_is_first_decides(dataset: Dataset) -> None:
    records = BatchRecords(dataset)
    assert records.begun("a") is None
    assert records.begin("a", 7, "here") and not records.give_up("a")
    begun = records.begun("a")
    assert begun is not None and (begun.requests, begun.where) == (7, "here")
    assert records.give_up("b") and not records.begin("b", 7, "here")
    given_up = records.begun("b")
    assert given_up is not None and given_up.requests == 0


def test_the_first_id_counts(dataset: Dataset) -> None:
    records = BatchRecords(dataset)
    records.begin("a", 1, "here")
    assert records.accepted("a") is None and records.all_accepted() == set()
    records.accept("a", "batch_1", "here")
    records.accept("a", "batch_2", "there")
    records.accept("b", "batch_3", "here")
    accepted = records.accepted("a")
    assert accepted is not None and (accepted.batch, accepted.where) == ("batch_1", "here")
    assert records.all_accepted() == {"batch_1", "batch_3"}


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"batch": "x"}', b'{"odd": 1}', b"\xff"])
def test_a_damaged_record_is_one_line_that_names_it(dataset: Dataset, damage: bytes) -> None:
    dataset.store.create("set/02_captioned/journal/batches/a.json", damage)
    with pytest.raises(StoreError, match=r"batches/a\.json: is damaged") as caught:
        BatchRecords(dataset).accepted("a")
    assert "\n" not in str(caught.value)


def test_open_requests_are_told_apart_by_their_batch() -> None:
    entries = {
        "k": Entry(1, 1, {1: Claim(9.0, 5, "w", "t")}),
        "l": Entry(2, 3, {3: Claim(9.0, 5, "w", "t")}),
        "m": Entry(1, 1, {1: Claim(9.0, 5, "w", "u")}),
        "n": Entry(1, 1, {1: Claim(9.0, 5, "w")}),
    }
    found = {batch.token: batch for batch in under_way(entries)}
    assert {token: set(batch.grants) for token, batch in found.items()} == {"t": {"k", "l"}, "u": {"m"}}
    assert (found["t"].grants["l"].attempt, found["t"].grants["l"].request) == (2, 3)
    found["t"].drop_what_ended({"k": entries["k"], "l": Entry(3, 3, {3: Claim(9.0, 5, "w", "t")})})
    assert set(found["t"].grants) == {"k"}, "another attempt's request is another"
    found["u"].drop_what_ended({"m": Entry(1, 1, {1: Claim(9.0, 5, "w", "v")})})
    assert not found["u"].grants, "the same number in another batch is another"


def test_a_batch_of_this_process_is_an_orphan_unless_it_is_in_hand() -> None:
    batch = Batch.new()
    assert batch.writer == this_writer() and batch.is_orphan and not batch.is_over and batch.age_s < 60
    in_hand.add(batch.token)
    try:
        assert not batch.is_orphan
    finally:
        in_hand.discard(batch.token)
    assert not Batch("t", "elsewhere/pid:1:1", 0.0).is_orphan and Batch("t", "", 0.0).is_over
