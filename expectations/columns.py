"""Plain columns over all shards of a stage, a few shards read at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.layout import Step
from vlmdata.store import LocalStore

T = TypeVar("T")
R = TypeVar("R")
_AT_ONCE = 8


def each(dataset: Dataset, work: Callable[[T], R], rows: Iterable[T]) -> list[R]:
    """Do something with every one, several at a time: what is far answers slowly, what is here takes a processor."""
    at_once = (os.cpu_count() or 1) if isinstance(dataset.store, LocalStore) else _AT_ONCE
    with ThreadPoolExecutor(min(at_once, _AT_ONCE), thread_name_prefix="gates") as pool:
        return list(pool.map(work, rows))


def parts(dataset: Dataset, shards: Sequence[Shard], step: Step, table: str, schema: pa.Schema) -> list[pa.Table]:
    """The columns that a schema names of one table, shard by shard; none without a column."""
    if not len(schema):
        return []
    return each(dataset, lambda shard: dataset.read(shard, step, table, schema.names).select(schema.names), shards)


def joined(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """One after the other; no shards are no rows."""
    return pa.concat_tables(tables) if tables else schema.empty_table()


def some_of(schema: pa.Schema, *names: str) -> pa.Schema:
    """A schema of the named fields alone."""
    return pa.schema([schema.field(name) for name in names])
