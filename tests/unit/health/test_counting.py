"""Counts over streamed tables are those of plain counting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from vlmdata.errors import StoreError
from vlmdata.health.counting import OTHERS, common_values, count

SCHEMA = pa.schema([("kind", pa.string()), ("size", pa.int8()), ("value", pa.int64())])
ROW = st.tuples(st.sampled_from(["a", "b", "", None]), st.sampled_from([1, 2, None]), st.integers(-(2**40), 2**40))


def table(rows: list[tuple[str | None, int | None, int]]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)


@limits(max_examples=30)
@given(st.lists(st.lists(ROW, max_size=12), max_size=4))
def test_counts_and_totals(parts: list[list[tuple[str | None, int | None, int]]]) -> None:
    kinds, both = count(SCHEMA, map(table, parts), [("kind",), ("kind", "size")], total="value")
    every = [row for part in parts for row in part]
    assert dict(zip(kinds["kind"].to_pylist(), kinds["count"].to_pylist(), strict=True)) == Counter(r[0] for r in every)
    expected: Counter[tuple[str | None, int | None]] = Counter()
    for kind, size, value in every:
        expected[kind, size] += value
    assert {(row["kind"], row["size"]): row["total"] for row in both.to_pylist()} == expected


def test_an_error_in_reading_stays_what_it_is() -> None:
    def tables() -> Iterator[pa.Table]:
        yield table([("a", 1, 1)])
        raise StoreError("the checkpoint is gone")

    with pytest.raises(StoreError, match=r"^the checkpoint is gone$"):
        count(SCHEMA, tables(), [("kind",)])


def test_rare_values_are_counted_under_one_name() -> None:
    counted = pa.table({"kind": ["a", "b", "c", None, "c"], "size": [1, 1, 1, 1, 2], "count": [5, 1, 2, 9, 4]})
    found = common_values(counted, "kind", most=2).to_pylist()
    assert {(row["kind"], row["size"]): row["count"] for row in found} == {
        ("c", 1): 2,
        ("c", 2): 4,
        (None, 1): 9,
        (OTHERS, 1): 6,
    }
    assert common_values(counted, "kind", most=4) is counted
