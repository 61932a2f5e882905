"""Every stage: what the one before kept came in, and in = kept + rejected + held + failed.

The second for samples and captions, the first for samples: captions are written and move on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from expectations.columns import columns
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
            "samples_lost_before": pa.array(_lost_before(dataset, shards, stage), pa.int64()),
        }
    )


def _missing(counts: Counts) -> int:
    return counts.came - counts.kept - counts.rejected - counts.held - counts.failed


def _lost_before(dataset: Dataset, shards: Sequence[Shard], stage: Stage) -> list[int | None]:
    """Samples that the stage before kept less those that came in; null: there is no stage before."""
    if stage is Stage.RAW:
        return [None] * len(shards)
    if stage is Stage.FINAL:
        return [_lost_by_the_plan(dataset, shards)] * len(shards)
    stages = list(Stage)
    before, here = Step(stages[stages.index(stage) - 1]), Step(stage)
    return [dataset.manifest(one, before).samples.kept - dataset.manifest(one, here).samples.came for one in shards]


def _lost_by_the_plan(dataset: Dataset, shards: Sequence[Shard]) -> int:
    """The export is cut anew, so over all its shards: the plan names the checkpoints that its samples come from."""
    if not shards:
        return 0
    checked = pc.unique(columns(dataset, shards, Step.EXPORT_PLAN, "plan", ["checked"])["checked"])
    manifests = [dataset.manifest_at(path) for path in checked.to_pylist()]
    # Counted by id: parts of a plan may stem from runs that cut the same samples differently.
    kept = pa.concat_tables([dataset.table(one.tables["samples"], ["id"]) for one in manifests])["id"]
    came = sum(dataset.manifest(shard, Step.FINAL).samples.came for shard in shards)
    return int(pc.count_distinct(kept).as_py()) - came


def expectations() -> list[Any]:
    """The rules over the accounts."""
    from great_expectations import expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnSumToBeBetween(column="samples", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="samples_unaccounted", min_value=0, max_value=0),
        gxe.ExpectColumnValuesToBeBetween(column="captions_unaccounted", min_value=0, max_value=0),
        gxe.ExpectColumnValuesToBeBetween(column="samples_lost_before", min_value=0, max_value=0),
    ]
