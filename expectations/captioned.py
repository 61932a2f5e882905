"""02_captioned: every sample that goes on has a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from expectations.columns import columns
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.layout import Step


def frame(dataset: Dataset, shards: Sequence[Shard], config: BuildConfig) -> pa.Table:
    """One row a sample: id, captioned (1 if it has a caption)."""
    ids = columns(dataset, shards, Step.CAPTIONED, "samples", ["id"])["id"]
    owners = columns(dataset, shards, Step.CAPTIONED, "captions", ["id"])["id"]
    return pa.table({"id": ids, "captioned": pc.cast(pc.is_in(ids, value_set=pc.unique(owners)), pa.int8())})


def expectations(config: BuildConfig) -> list[Any]:
    """The rules of the stage."""
    from great_expectations import expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="copies", max_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="captioned", min_value=1),
    ]
