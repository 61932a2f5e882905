"""Whose hashes are close to another's: the pictures that must be looked at before it is settled who goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Manifest, Result, Shard, TableRef, run_once
from vlmdata.filtering.pool import Pool, Standing, Terms, pool_of, reads_of, reads_on
from vlmdata.filtering.verdicts import near_another
from vlmdata.layout import Step
from vlmdata.schema import ID

_CLOSE = pa.schema([ID])
_TAKEN_OVER = (Step.LOOKS, Step.CAPTIONED)
"""Checkpoints of a version by which its embeddings are found."""


def find_close(
    dataset: Dataset, shards: Sequence[Shard], terms: Terms, standing: Standing | None = None
) -> list[Shard]:
    """Find all candidates that have another within `max_distance` bits.

    Tables `close/<shard>` (id) of the shards that have any, with those that
    were found for the version before and are candidates still: the gate of
    stage 01 sees them all. `facts` names the shards that have one `now`, and
    what the version `before` has of them.
    """
    reads = reads_of(dataset, shards, terms)
    if standing and standing.reads == reads:
        kept = {step.value for step in (Step.CLOSE, Step.LOOKS)}
        then = {name: shard.manifests for name, shard in standing.shards.items()}
        return [
            _with(shard, {step: path for step, path in then[shard.name].items() if step in kept}) for shard in shards
        ]
    before = _before(dataset, standing)
    everything = Shard("all", sum(shard.rows for shard in shards))

    def work(_: Manifest | None) -> Result:
        pool = pool_of(dataset, shards, reads, terms, standing)
        near = near_another(pool.candidates, terms.dedup.max_distance)
        return _result(dataset, shards, pool, near, before, standing)

    named = [f"close {name} {ref.digest(['id'])}" for name, ref in sorted(before.items())]
    done = run_once(dataset, everything, Step.CLOSE, [*reads_on(reads, standing), *named], terms.settings(), work)
    path = done.manifests[Step.CLOSE]
    return [_with_looks(dataset, shard.at(Step.CLOSE, path), before, standing) for shard in shards]


def _with(shard: Shard, manifests: dict[str, str]) -> Shard:
    return Shard(shard.name, shard.rows, {**shard.manifests, **manifests})


def _before(dataset: Dataset, standing: Standing | None) -> dict[str, TableRef]:
    """The tables of the version before, by shard."""
    known = next(iter(standing.shards.values()), None) if standing else None
    if known is None or Step.CLOSE not in known.manifests:
        return {}
    tables = dataset.manifest(known, Step.CLOSE).tables
    return {name.removeprefix("close/"): ref for name, ref in tables.items()}


def _with_looks(dataset: Dataset, shard: Shard, before: dict[str, TableRef], standing: Standing | None) -> Shard:
    """With the embeddings of the version before, if those are all that are asked for."""
    table = dataset.manifest(shard, Step.CLOSE).tables.get(f"close/{shard.name}")
    then = standing.shards.get(shard.name) if standing else None
    if table is None or then is None or table != before.get(shard.name) or Step.LOOKS not in then.manifests:
        return shard
    return shard.at(Step.LOOKS, then.manifests[Step.LOOKS])


def _result(
    dataset: Dataset,
    shards: Sequence[Shard],
    pool: Pool,
    near: np.ndarray[tuple[int], np.dtype[np.bool_]],
    before: dict[str, TableRef],
    standing: Standing | None,
) -> Result:
    names = [shard.name for shard in shards]
    rows = pool.rows.select(["id", "shard"])
    found = rows.filter(pa.array(near))
    now = set(pc.unique(found["shard"]).to_pylist())
    as_before = {name for name in names if name in before and name not in now | pool.fresh}
    again = [name for name in names if name in before and name not in as_before]
    then = [dataset.table(before[name]) for name in again]
    known = pa.concat_tables([_CLOSE.empty_table(), *then])["id"]
    still = rows.filter(pc.is_in(rows["id"], value_set=known))
    both = pa.concat_tables([found, still]).group_by(["shard", "id"]).aggregate([])
    both = both.sort_by([("shard", "ascending"), ("id", "ascending")])
    tables: dict[str, pa.Table | TableRef] = {f"close/{name}": before[name] for name in sorted(as_before)}
    tables |= {f"close/{name}": ids for name, ids in _by_shard(both).items() if name not in as_before}
    shown = standing.shards if standing else {}
    taken = {
        name: {step.value: shown[name].manifests[step] for step in _TAKEN_OVER if step in shown[name].manifests}
        for name in names
        if f"close/{name}" in tables and name in shown and name not in as_before
    }
    return Result(tables, facts={"now": sorted(now), "before": taken})


def _by_shard(rows: pa.Table) -> dict[str, pa.Table]:
    """Ids of each shard; the rows are sorted by shard."""
    names, starts, counts = np.unique(rows["shard"].to_numpy(), return_index=True, return_counts=True)
    ids = rows.select(["id"]).cast(_CLOSE).combine_chunks()
    return {name: ids.slice(start, count) for name, start, count in zip(names, starts, counts, strict=True)}
