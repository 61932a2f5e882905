"""Every request under a key is found in the log, whatever the book has made of it since."""

from __future__ import annotations

from pathlib import Path

from vlmdata import layout
from vlmdata.captioning.journal.history import requests_of
from vlmdata.captioning.journal.records import Ask, End, Open, Record, encode
from vlmdata.checkpoint import Dataset

MINE, OTHER = "a" * 32, "b" * 32


def ask(key: str, attempt: int, request: int, batch: str | None = None) -> Ask:
    return Ask(key, attempt, request, 1.0, 1_000, "me", batch)


def end(key: str, attempt: int, request: int, text: str | None, *, unsent: bool = False) -> End:
    failure = None if text else "transient"
    return End(key, attempt, request, text, failure, False, 200, None, 5, 2, 700, 0.5, 9.0, None, unsent)  # type: ignore[arg-type]


def written(folder: Path, *segments: list[Record]) -> Dataset:
    dataset = Dataset(str(folder), "set")
    for number, records in enumerate(segments, 1):
        dataset.store.create(layout.journal_segment("set", number), encode(records))
    return dataset


def test_requests_of_all_attempts_are_told_in_their_order(tmp_path: Path) -> None:
    dataset = written(
        tmp_path,
        [ask(OTHER, 1, 1)],
        [ask(MINE, 1, 1), end(OTHER, 1, 1, "x")],
        [end(MINE, 1, 1, None), ask(MINE, 1, 2)],
        [Open(MINE, 2), ask(MINE, 2, 1)],
        [end(MINE, 2, 1, "A cat.")],
    )
    found = requests_of(dataset, [MINE])[MINE]
    assert [(one.ask.attempt, one.ask.request) for one in found] == [(1, 1), (1, 2), (2, 1)]
    assert [None if one.end is None else one.end.failure for one in found] == ["transient", None, None]
    assert found[1].end is None, "nobody heard how it ended"
    assert found[2].end is not None and found[2].end.cost == 700


def test_a_request_that_never_left_is_none_and_its_number_is_given_again(tmp_path: Path) -> None:
    dataset = written(
        tmp_path,
        [ask(MINE, 1, 1), end(MINE, 1, 1, None, unsent=True)],
        [ask(MINE, 1, 1), end(MINE, 1, 1, "A cat.")],
    )
    [only] = requests_of(dataset, [MINE])[MINE]
    assert only.end is not None and not only.end.unsent


def test_the_log_is_read_no_further_back_than_it_must(tmp_path: Path) -> None:
    dataset = written(tmp_path, *[[ask(OTHER, 1, 1)]] * 200, [ask(MINE, 1, 1), end(MINE, 1, 1, "A cat.")])
    dataset.store.replace(layout.journal_segment("set", 1), b"{damaged\n" + MINE.encode())
    assert len(requests_of(dataset, [MINE])[MINE]) == 1


def test_no_key_reads_nothing(tmp_path: Path) -> None:
    assert requests_of(written(tmp_path), []) == {} and requests_of(written(tmp_path), [MINE]) == {MINE: []}
