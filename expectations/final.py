"""04_final: what was written is what was kept, each sample once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from expectations.columns import columns
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.layout import Step


def frame(dataset: Dataset, shards: Sequence[Shard], config: BuildConfig) -> pa.Table:
    """One row an exported sample."""
    return columns(dataset, shards, Step.FINAL, "samples", ["id"])


def expectations(config: BuildConfig) -> list[Any]:
    """The rules of the stage."""
    from great_expectations import expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="copies", max_value=1),
    ]
