"""00_raw: there are samples, and no id stands twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from expectations.columns import columns
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.layout import Step


def frame(dataset: Dataset, shards: Sequence[Shard], config: BuildConfig) -> pa.Table:
    """One row a sample."""
    return columns(dataset, shards, Step.RAW, "samples", ["id", "sha256"])


def expectations(config: BuildConfig) -> list[Any]:
    """The rules of the stage."""
    from great_expectations import expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="copies", max_value=1),
        gxe.ExpectColumnValuesToMatchRegex(column="sha256", regex="^[0-9a-f]{64}$"),
    ]
