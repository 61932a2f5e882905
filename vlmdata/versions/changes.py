"""What moved between two versions: only shards whose checkpoints differ are looked into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.export.rows import CAPTION_COLUMNS, SAMPLE_COLUMNS, row_digests, with_captions
from vlmdata.layout import Step
from vlmdata.versions.version import Changes

_TOLD = pa.schema([("id", pa.string()), ("key", pa.string()), ("digest", pa.binary())])


def changes(dataset: Dataset, before: Sequence[Shard], now: Sequence[Shard]) -> Changes:
    """Count what is new, what is gone, and what is another picture or says something else under its old key."""
    then, today = _checked(before), _checked(now)
    old = _told(dataset, [shard for shard in before if today.get(shard.name) != then[shard.name]])
    new = _told(dataset, [shard for shard in now if then.get(shard.name) != today[shard.name]])
    lost = old.filter(pc.invert(pc.is_in(old["id"], value_set=new["id"])))
    found = new.filter(pc.invert(pc.is_in(new["id"], value_set=old["id"])))
    replaced = pc.sum(pc.is_in(found["key"], value_set=lost["key"])).as_py() or 0
    replacing = pc.sum(pc.is_in(lost["key"], value_set=found["key"])).as_py() or 0
    told_otherwise = _told_otherwise(old, new)
    return Changes(
        added=found.num_rows - replaced, removed=lost.num_rows - replacing, changed=replaced + told_otherwise
    )


def _checked(shards: Sequence[Shard]) -> Mapping[str, str]:
    return {shard.name: shard.manifests[Step.CHECKED.value] for shard in shards}


def _told(dataset: Dataset, shards: Sequence[Shard]) -> pa.Table:
    """Every sample's id, its key, and a digest of what an export says of it."""
    parts = [_TOLD.empty_table()]
    for shard in shards:
        samples = dataset.read(shard, Step.CHECKED, "samples", SAMPLE_COLUMNS)
        captions = dataset.read(shard, Step.CHECKED, "captions", CAPTION_COLUMNS)
        digests = row_digests(with_captions(samples, captions))
        parts.append(pa.table([samples["id"], samples["key"], digests], schema=_TOLD))
    return pa.concat_tables(parts).combine_chunks()


def _told_otherwise(old: pa.Table, new: pa.Table) -> int:
    at = pc.index_in(new["id"], value_set=old["id"])
    both = new.filter(pc.is_valid(at))
    then = old["digest"].take(at.drop_null())
    return pc.sum(pc.not_equal(both["digest"], then)).as_py() or 0
