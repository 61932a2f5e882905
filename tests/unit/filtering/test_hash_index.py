"""The index that lasts: what it says is what was last said of each shard, however its segments were merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmdata.checkpoint import Dataset
from vlmdata.filtering.hash_index import INDEX, HashIndex
from vlmdata.schema import filled


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(str(tmp_path / "store"), "set")


def rows(said: dict[str, list[str]]) -> pa.Table:
    """Ids by shard."""
    parts = [INDEX.empty_table()]
    for shard, ids in said.items():
        columns: dict[str, Any] = {"id": pa.array(ids, pa.string()), "phash": 7, "pixels": 1}
        parts.append(filled(INDEX, len(ids), **columns, shard=shard, published=True, gives=False))
    return pa.concat_tables(parts)


def told(dataset: Dataset, index: HashIndex) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in index.read(dataset).to_pylist():
        found.setdefault(row["shard"], []).append(row["id"])
    return found


def test_a_shard_said_anew_is_what_was_said_last(dataset: Dataset) -> None:
    index = HashIndex().updated(dataset, rows({"a": ["1", "2"], "b": ["3"] * 40}), {"a", "b"}, ["a", "b"])
    index = index.updated(dataset, rows({"a": ["9"]}), {"a"}, ["a", "b"])
    assert told(dataset, index) == {"a": ["9"], "b": ["3"] * 40}


def test_a_shard_that_is_gone_is_gone(dataset: Dataset) -> None:
    index = HashIndex().updated(dataset, rows({"a": ["1"], "b": ["2"]}), {"a", "b"}, ["a", "b"])
    assert told(dataset, index.updated(dataset, rows({}), set(), ["b"])) == {"b": ["2"]}
    assert told(dataset, index.updated(dataset, rows({}), {"b"}, ["a", "b"])) == {"a": ["1"]}


def test_segments_are_few_and_never_change(dataset: Dataset) -> None:
    index, names = HashIndex(), list[str]()
    seen: dict[str, bytes] = {}
    for night in range(100):
        names.append(f"{night:05d}")
        index = index.updated(dataset, rows({names[-1]: [f"{night}-{n}" for n in range(10)]}), {names[-1]}, names)
        for segment in index.segments:
            data = dataset.store.get(segment.path)
            assert seen.setdefault(segment.path, data) == data
        assert len(index.segments) <= 8
    assert sum(len(ids) for ids in told(dataset, index).values()) == 1_000


NIGHTS = st.lists(
    st.dictionaries(st.sampled_from("abcdef"), st.lists(st.integers(0, 99), max_size=9), max_size=4), max_size=10
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nights=NIGHTS, gone=st.lists(st.sampled_from("abcdef"), max_size=10))
def test_any_history_reads_as_the_last_word_on_each_shard(
    dataset: Dataset, nights: list[dict[str, list[int]]], gone: list[str]
) -> None:
    index, expected = HashIndex(), dict[str, list[str]]()
    for night, changed in enumerate(nights):
        expected |= {shard: [str(id_) for id_ in ids] for shard, ids in changed.items()}
        if night < len(gone):
            expected.pop(gone[night], None)
        here = {shard: expected[shard] for shard in changed if shard in expected}
        index = index.updated(dataset, rows(here), set(changed), sorted(expected))
        assert told(dataset, index) == {shard: ids for shard, ids in expected.items() if ids}
        assert all(home.rows == len(expected[shard]) for shard, home in index.homes.items())
