"""Every stage: something is left, each sample once, and in = kept + rejected + held + failed.

The equation for samples and captions. What the stage before kept must have come
in, for samples alone: captions are written and move on the way.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from expectations.columns import each, joined, parts, some_of
from expectations.rule import AT_LEAST, Figure, Rule, breaking, none_may
from expectations.sets import repeated
from vlmdata.checkpoint import Counts, Dataset, Manifest, Shard
from vlmdata.layout import Stage, Step
from vlmdata.schema import SAMPLES

_ID = some_of(SAMPLES, "id")


def rules(
    dataset: Dataset, shards: Sequence[Shard], stage: Stage, written: Sequence[pa.Table], kept_before: int | None = None
) -> list[Rule]:
    """The rules of any stage.

    Args:
        dataset: Where the shards are.
        shards: At the stage.
        stage: Which one.
        written: The samples of each shard, as they are read back.
        kept_before: What the stage before kept over all shards, if a run has that on record.
    """
    manifests = each(dataset, lambda shard: dataset.manifest(shard, Step(stage.value)), shards)
    rows = [len(table) for table in written]
    names = pa.array([shard.name for shard in shards], pa.string())
    unwritten = [manifest.samples.kept - there for manifest, there in zip(manifests, rows, strict=True)]
    found = [
        Rule("not_empty", "something is left", "samples", Figure(sum(rows)), at_least=1, expectation=AT_LEAST),
        none_may("unique_ids", "every id stands once", "repeated_ids", repeated(joined(written, _ID)["id"])),
        none_may(
            "kept_written",
            "as many samples are there as the manifest says were kept",
            "shards_with_other_rows",
            _none_but_zero(names, unwritten),
        ),
        *(_equation(names, manifests, what) for what in ("samples", "captions")),
    ]
    lost = _lost_before(dataset, shards, stage, manifests, kept_before)
    return found if lost is None else [*found, _nothing_lost(names, lost)]


def _none_but_zero(names: pa.Array, values: Sequence[int]) -> Figure:
    column = pa.array(values, pa.int64())
    return breaking(names, pc.equal(column, 0), column, "shards")


def _equation(names: pa.Array, manifests: Sequence[Manifest], what: str) -> Rule:
    return none_may(
        f"{what}_accounted",
        f"{what} in = kept + rejected + held + failed",
        f"shards_with_{what}_unaccounted",
        _none_but_zero(names, [_missing(getattr(manifest, what)) for manifest in manifests]),
        "ExpectInToEqualOut",
        what=what,
    )


def _missing(counts: Counts) -> int:
    return counts.came - counts.kept - counts.rejected - counts.held - counts.failed


def _nothing_lost(names: pa.Array, lost: Sequence[int]) -> Rule:
    return none_may(
        "nothing_lost",
        "what the stage before kept came in",
        "shards_with_samples_lost_before",
        _none_but_zero(names, lost),
        "ExpectInToEqualOut",
        what="samples kept by the stage before",
    )


def _lost_before(
    dataset: Dataset, shards: Sequence[Shard], stage: Stage, manifests: Sequence[Manifest], kept_before: int | None
) -> list[int] | None:
    """Samples that the stage before kept less those that came in, a shard; None: there is no stage before."""
    if stage is Stage.RAW:
        return None
    if stage is Stage.FINAL:
        came = sum(manifest.samples.came for manifest in manifests)
        kept = _kept_by_the_plan(dataset, shards) if kept_before is None else kept_before
        return [kept - came] * len(shards)
    before = Step(list(Stage)[list(Stage).index(stage) - 1].value)
    earlier = each(dataset, lambda shard: dataset.manifest(shard, before), shards)
    return [one.samples.kept - here.samples.came for one, here in zip(earlier, manifests, strict=True)]


def _kept_by_the_plan(dataset: Dataset, shards: Sequence[Shard]) -> int:
    """The export is cut anew, so over all its shards: the plan names the checkpoints that its samples come from."""
    plan = pa.schema([("checked", pa.string())])
    checked = pc.unique(joined(parts(dataset, shards, Step.EXPORT_PLAN, "plan", plan), plan)["checked"])
    # Counted by id: parts of a plan may stem from runs that cut the same samples differently.
    kept = each(dataset, lambda path: _kept(dataset, path), checked.to_pylist())
    return int(pc.count_distinct(joined(kept, _ID)["id"]).as_py())


def _kept(dataset: Dataset, path: str) -> pa.Table:
    return dataset.table(dataset.manifest_at(path).tables["samples"], _ID.names)
