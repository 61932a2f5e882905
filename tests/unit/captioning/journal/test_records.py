"""A segment's bytes: what is written is read again, and what is damaged is said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.captioning.journal.records import Ask, End, Open, Record, decode, encode
from vlmdata.errors import StoreError

KEY = st.text("0123456789abcdef", min_size=32, max_size=32)
SMALL = st.integers(1, 4)
MONEY = st.integers(0, 10**18)
# Whatever a server may say: line ends of every kind, quotes, other scripts.
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ASKS = st.builds(Ask, KEY, SMALL, SMALL, st.floats(0, 1e12), MONEY, WORDS, st.none() | WORDS)
ENDS = st.builds(
    End,
    KEY,
    SMALL,
    SMALL,
    text=st.none() | WORDS,
    failure=st.none() | st.sampled_from(["transient", "permanent", "refused"]),
    final=st.booleans(),
    status=st.none() | st.integers(100, 599),
    message=st.none() | WORDS,
    input_tokens=st.none() | MONEY,
    output_tokens=st.none() | MONEY,
    cost=st.none() | MONEY,
    seconds=st.floats(0, 1e6),
    at=st.floats(0, 1e12),
    unsent=st.booleans(),
    not_before=st.none() | st.floats(0, 1e12),
)
RECORDS = st.lists(ASKS | ENDS | st.builds(Open, KEY, SMALL), max_size=6)


@given(RECORDS)
def test_what_is_written_is_read_again(records: list[Record]) -> None:
    data = encode(records)
    assert decode(data, "here") == records
    assert data.count(b"\n") == len(records), "a record a line, for people who look"


@given(RECORDS.filter(bool), st.data())
def test_a_segment_that_was_cut_is_never_read_as_less_money(records: list[Record], data: st.DataObject) -> None:
    whole = encode(records)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        read = decode(cut, "here")
    except StoreError as error:
        assert "\n" not in str(error)
    else:
        assert read == records[: len(read)], "whole records, and nothing made up"


@pytest.mark.parametrize(
    "line",
    ["5", '"ask"', "[]", "null", "{}", '{"": "ask"}', '{"": "loan", "key": "0"}', '{"": "open", "key": "0"}', "{",
     '{"": "open", "key": "0", "attempt": 2, "more": 1}', '{"": "end", "key": "0", "attempt": 1, "request": 1}'],
)  # fmt: skip
def test_what_is_no_record_is_said(line: str) -> None:
    with pytest.raises(StoreError, match="here: is damaged"):
        decode(line.encode(), "here")


def test_a_record_says_only_what_there_is_to_say() -> None:
    (row,) = encode([Open("0", 2)]).splitlines()
    assert json.loads(row) == {"": "open", "key": "0", "attempt": 2}
