"""Plain columns over all shards of a stage."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.layout import Step


def columns(dataset: Dataset, shards: Sequence[Shard], step: Step, table: str, names: Sequence[str]) -> pa.Table:
    """Some columns of one table of every shard, one after the other."""
    parts = [dataset.read(shard, step, table, names).select(list(names)) for shard in shards]
    return pa.concat_tables(parts)
