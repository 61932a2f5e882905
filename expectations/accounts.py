"""Every stage: something came in, and in = kept + rejected + held + failed, for samples and captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vlmdata.checkpoint import Counts, Dataset, Shard
from vlmdata.layout import Stage, Step


def frame(dataset: Dataset, shards: Sequence[Shard], stage: Stage) -> pa.Table:
    """One row a shard: what is not accounted for, read back from the store."""
    manifests = [dataset.manifest(shard, Step(stage.value)) for shard in shards]
    return pa.table(
        {
            "shard": pa.array([shard.name for shard in shards], pa.string()),
            "samples": pa.array([m.samples.came for m in manifests], pa.int64()),
            "samples_unaccounted": pa.array([_missing(m.samples) for m in manifests], pa.int64()),
            "captions_unaccounted": pa.array([_missing(m.captions) for m in manifests], pa.int64()),
        }
    )


def _missing(counts: Counts) -> int:
    return counts.came - counts.kept - counts.rejected - counts.held - counts.failed


def expectations() -> list[Any]:
    """The rules over the accounts."""
    from great_expectations import expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnSumToBeBetween(column="samples", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="samples_unaccounted", min_value=0, max_value=0),
        gxe.ExpectColumnValuesToBeBetween(column="captions_unaccounted", min_value=0, max_value=0),
    ]
