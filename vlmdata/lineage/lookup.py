"""A sample among all shards, by columns: nothing is read but names, until it is found.

A version's index of hashes tells the shard of most samples at once; it is a
hint, for it knows only pictures that pass the rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata.checkpoint import Dataset, Shard, TableRef
from vlmdata.errors import ConfigError
from vlmdata.layout import Stage, Step
from vlmdata.lineage.view import View

_AT_ONCE = 16
_LEAST_DIGITS = 8
"""Of the beginning of an id."""
_WHOLE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Found:
    """The row that 00_raw has of a sample, and the shard it lies in."""

    shard: Shard
    row: dict[str, Any]


def find(view: View, sample: str) -> Found | None:
    """A sample by its id, the beginning of one (8 digits or more), its key, or its address.

    Raises:
        ConfigError: several samples answer to it.
    """
    shards = view.shards(Stage.RAW)
    if _WHOLE_ID.fullmatch(sample):
        first = home(view, sample)
        ordered = sorted(shards, key=lambda shard: shard.name != first)
        # One shard where the index knows it; an id is in no more than one.
        searches = chain([ordered[:1]], _batches(ordered[1:]))
        found = next((hits for batch in searches if (hits := _search(view.dataset, batch, sample))), [])
    else:
        found = [hit for batch in _batches(shards) for hit in _search(view.dataset, batch, sample)]
    if len({one.row["id"] for one in found}) > 1:
        several = ", ".join(f"{one.row['id']} ({one.row['key']})" for one in found[:5])
        raise ConfigError(f"sample {sample!r}: {len(found)} samples answer to it; give a whole id: {several}")
    return found[0] if found else None


def home(view: View, sample: str) -> str | None:
    """The shard that a version's index names for an id, if there is one and it knows it."""
    version = view.published
    for segment in reversed(version.index.segments if version else ()):
        for names in row_groups(view.dataset, segment, ["id", "shard"]):
            hit = names.filter(pc.equal(names["id"], pa.scalar(sample)))
            if hit.num_rows:
                name: str = hit["shard"][0].as_py()
                return name
    return None


def row_groups(dataset: Dataset, ref: TableRef, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of a table, a row group at a time: memory does not grow with the set."""
    file = pq.ParquetFile(dataset.store.open(ref.path), read_dictionary=["shard"])
    return (file.read_row_group(group, columns=list(columns)) for group in range(file.num_row_groups))


def key_of(view: View, sample: str, shard: str | None = None) -> str | None:
    """What the source calls a sample; null: it is not there."""
    there = view.shard(Stage.RAW, shard) if shard else None
    found = _search(view.dataset, [there], sample) if there else []
    one = found[0] if found else find(view, sample)
    return str(one.row["key"]) if one else None


def rows(dataset: Dataset, shard: Shard, step: Step, table: str, sample: str) -> pa.Table:
    """The sample's rows of one table; none if the step was not reached or has no such table."""
    if step.value not in shard.manifests or table not in dataset.manifest(shard, step).tables:
        return pa.table({"id": pa.array([], pa.string())})
    whole: pa.Table = dataset.read(shard, step, table)
    return whole.filter(pc.equal(whole["id"], pa.scalar(sample)))


def holds(dataset: Dataset, ref: TableRef | None, sample: str) -> bool:
    """Whether a table has a row of a sample; one column of it is read."""
    if ref is None or not ref.rows:
        return False
    return bool(pc.any(pc.equal(dataset.table(ref, ["id"])["id"], pa.scalar(sample))).as_py())


def _batches(shards: Sequence[Shard]) -> Iterator[Sequence[Shard]]:
    size = 4 * _AT_ONCE
    return (shards[start : start + size] for start in range(0, len(shards), size))


def _search(dataset: Dataset, shards: Sequence[Shard], sample: str) -> list[Found]:
    """In that order, on threads: most of it is waiting for the store."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        parts: Iterable[list[Found]] = pool.map(lambda shard: _search_one(dataset, shard, sample), shards)
        return [one for part in parts for one in part]


def _search_one(dataset: Dataset, shard: Shard, sample: str) -> list[Found]:
    tables = dataset.manifest(shard, Step.RAW).tables
    found = []
    for ref in (tables["samples"], tables["rejects"]):
        if ref.rows and (ids := _ids(dataset, ref, sample)):
            whole = dataset.table(ref)
            found += whole.filter(pc.is_in(whole["id"], value_set=pa.array(ids, pa.string()))).to_pylist()
    return [Found(shard, row) for row in found]


def _ids(dataset: Dataset, ref: TableRef, sample: str) -> list[str]:
    """Ids of the rows that answer to a name."""
    by_address = "://" in sample and "url" in ref.columns
    names = dataset.table(ref, ["id", "key", *(["url"] if by_address else [])])
    name = pa.scalar(sample)
    match = pc.or_(pc.equal(names["id"], name), pc.equal(names["key"], name))
    if by_address:
        match = pc.or_(match, pc.fill_null(pc.equal(names["url"], name), False))
    if len(sample) >= _LEAST_DIGITS:
        match = pc.or_(match, pc.starts_with(names["id"], sample))
    ids: list[str] = names["id"].filter(match).to_pylist()
    return ids
