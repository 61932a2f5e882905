"""Ids follow from content, and tables have exactly their columns."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata import schema
from vlmdata.schema import CAPTIONS, REJECTS, caption_table, filled, sample_ids

words = st.text(max_size=20)


@given(st.lists(st.tuples(words, words), max_size=8, unique=True))
def test_a_samples_id_depends_on_its_content_and_key_alone(rows: list[tuple[str, str]]) -> None:
    digests, keys = [sha256(content.encode()).hexdigest() for content, _ in rows], [key for _, key in rows]
    ids = sample_ids(digests, keys)
    assert len(set(ids)) == len(rows)
    assert all(len(one) == 32 for one in ids)
    assert ids == [sample_ids([digest], [key])[0] for digest, key in zip(digests, keys, strict=True)]


@pytest.mark.parametrize("change", [{"id": "b"}, {"text": "y"}, {"lang": "en"}, {"origin": "model:m"}])
def test_a_captions_id_depends_on_all_that_it_is(change: dict[str, str]) -> None:
    first: dict[str, Any] = {"id": "a", "text": "x", "lang": None, "origin": "source"}
    tables = [caption_table(*([row[name]] for name in first)) for row in (first, {**first, **change})]
    assert tables[0].schema == CAPTIONS
    assert tables[0]["caption_id"] != tables[1]["caption_id"]


def test_the_parts_of_a_captions_id_do_not_run_into_one_another() -> None:
    table = caption_table(["a", "a"], ["xen", "x"], [None, "en"], ["source", "source"])
    assert len(set(table["caption_id"].to_pylist())) == 2


@pytest.mark.parametrize("rows", [0, 3])
def test_a_filled_table_has_the_schema_and_nulls_where_nothing_is_given(rows: int) -> None:
    ids = pa.array([str(number) for number in range(rows)], pa.string())
    table = filled(REJECTS, rows, id=ids, key=pa.chunked_array([ids]), outcome="held", code="c", retryable=False)
    assert (table.schema, table.num_rows) == (REJECTS, rows)
    assert table["outcome"].to_pylist() == ["held"] * rows
    assert table["value"].null_count == rows


def test_every_column_says_what_it_holds() -> None:
    tables = {name: value for name, value in vars(schema).items() if isinstance(value, pa.Schema)}
    assert {"SAMPLES", "CAPTIONS", "REJECTS", "FACTS", "FILTERED", "CHECKED"} <= set(tables)
    assert [f"{name}.{column.name}" for name, table in tables.items() for column in table if not column.metadata] == []
