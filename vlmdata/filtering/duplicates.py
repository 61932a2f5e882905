"""Near-duplicates over all shards: which pictures go, and where their captions go.

The one global step of stage 01. It reads hashes and sizes, never pictures; of
shards that are as they were when a version was published not even those, for
the version's index has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, TableRef, run_once
from vlmdata.filtering.hash_index import INDEX, rows_of
from vlmdata.filtering.look import looked_at, seen_of
from vlmdata.filtering.near_duplicates import expected_chance_drops
from vlmdata.filtering.pool import Pool, Standing, Terms, pool_of, reads_of, reads_on
from vlmdata.filtering.verdicts import Verdicts, settle
from vlmdata.layout import Step
from vlmdata.schema import CAPTIONS, DUPLICATES, caption_table

_MUCH = 0.01
"""Share of the pictures that are dropped by chance above which that is said."""


def find_duplicates(
    dataset: Dataset, shards: Sequence[Shard], terms: Terms, standing: Standing | None = None
) -> list[Shard]:
    """Decide over all shards at once which pictures stay: no two within `max_distance` bits (that look alike).

    What is published stays; of the others the best (`verdicts.settle`). Tables
    `dropped/<shard>` (`schema.DUPLICATES`) and `gained/<shard>`
    (`schema.CAPTIONS`: captions of dropped pictures, under the id of the one
    that stays) for the shards that have any; table `decided`
    (`hash_index.INDEX`) of all shards that are not as the version left them,
    which `facts` names. About 400 bytes of memory a sample, 240 on top of a
    version; where pictures are looked at, 1 to 2 KB more for each of those.
    """
    reads = reads_of(dataset, shards, terms)
    if standing and standing.reads == reads:
        # All is as it was; what was decided then stands.
        return [shard.at(Step.DUPLICATES, standing.decided) for shard in shards]
    everything, look = Shard("all", sum(shard.rows for shard in shards)), terms.look

    def work(_: Manifest | None) -> Result:
        pool = pool_of(dataset, shards, reads, terms, standing)
        seen = seen_of(dataset, shards, pool.candidates.ids, look) if look else None
        verdicts = settle(pool.candidates, terms.dedup.max_distance, seen)
        result = _result(dataset, shards, pool, verdicts, standing)
        chance = expected_chance_drops(len(pool.candidates.ids), terms.dedup.max_distance)
        result.facts |= {"expected_chance_drops": round(chance, 3), "rules": terms.digest, "reads": reads}
        result.facts["warnings"] = _too_many_by_chance(chance, len(pool.candidates.ids), terms)
        return result

    looks = [dataset.digest(shard, Step.LOOKS, "images", ["id", "embedding"]) for shard in looked_at(dataset, shards)]
    done = run_once(dataset, everything, Step.DUPLICATES, [*reads_on(reads, standing), *looks], terms.settings(), work)
    manifest = done.manifests[Step.DUPLICATES]
    return [shard.at(Step.DUPLICATES, manifest) for shard in shards]


def _too_many_by_chance(expected: float, candidates: int, terms: Terms) -> list[str]:
    """What people should know of pictures that are dropped for hashes that are close by chance, where they are many."""
    if terms.look is not None or expected <= _MUCH * candidates:
        return []
    return [
        f"dedup: of {candidates:,} pictures some {expected:,.0f} ({expected / candidates:.1%}) are dropped because"
        f" their hashes lie within {terms.dedup.max_distance} bits by chance;"
        " with dedup.confirm they are looked at first"
    ]


def dropped_and_gained(dataset: Dataset, shard: Shard) -> tuple[pa.Table, pa.Table]:
    """What the global step decided for one shard: `schema.DUPLICATES` and gained `schema.CAPTIONS`."""
    tables = dataset.manifest(shard, Step.DUPLICATES).tables
    dropped, gained = tables.get(f"dropped/{shard.name}"), tables.get(f"gained/{shard.name}")
    return (
        dataset.table(dropped) if dropped else DUPLICATES.empty_table(),
        dataset.table(gained) if gained else CAPTIONS.empty_table(),
    )


def digests(dataset: Dataset, shard: Shard) -> list[str]:
    """What a later key says of the decisions for one shard."""
    tables = dataset.manifest(shard, Step.DUPLICATES).tables
    names = [f"dropped/{shard.name}", f"gained/{shard.name}"]
    return [tables[name].digest(list(tables[name].columns)) if name in tables else "" for name in names]


def _result(
    dataset: Dataset, shards: Sequence[Shard], pool: Pool, verdicts: Verdicts, standing: Standing | None
) -> Result:
    names = np.array([shard.name for shard in shards], dtype=object)
    before = dataset.manifest_at(standing.decided).tables if standing else {}
    now = _told(pool, verdicts)
    moved = _differs(pool.rows, now)
    decided = pool.fresh | set(names[np.unique(pool.shard[moved])])
    receiving = _receiving(pool, verdicts, moved, names)
    tables: dict[str, pa.Table | TableRef] = {"decided": rows_of(now, sorted(decided))}
    tables |= _carried(before, "dropped/", [name for name in names if name not in decided])
    tables |= _carried(before, "gained/", [name for name in names if name not in receiving])
    tables |= _dropped(now, sorted(decided))
    tables |= _gained(dataset, shards, pool, verdicts, receiving)
    kept, total = int(verdicts.kept.sum()), now.num_rows
    counts = Counts(came=total, kept=kept, rejected=total - kept)
    return Result(tables, samples=counts, facts={"decided": sorted(decided)})


def _told(pool: Pool, verdicts: Verdicts) -> pa.Table:
    """The rows with what is decided now."""
    dropped = pa.array(np.where(verdicts.kept, -1, verdicts.keeper), mask=verdicts.kept)
    told = {
        "duplicate_of": pool.candidates.ids.take(dropped),
        "distance": pa.array(verdicts.distance, mask=verdicts.kept),
        "gives": pa.array(verdicts.gives),
    }
    return pa.table([told.get(name, pool.rows[name]) for name in INDEX.names], schema=INDEX)


def _differs(before: pa.Table, now: pa.Table) -> npt.NDArray[np.bool_]:
    """Rows of which something else was decided before."""
    changed = np.zeros(now.num_rows, dtype=bool)
    for name, nobody in (("duplicate_of", ""), ("distance", -1), ("gives", False)):
        same = pc.equal(pc.fill_null(before[name], nobody), pc.fill_null(now[name], nobody))
        changed |= ~np.asarray(same, dtype=bool)
    return changed


def _receiving(pool: Pool, verdicts: Verdicts, moved: npt.NDArray[np.bool_], names: Any) -> set[str]:
    """Shards that hold a picture whose gained captions may be others than before."""
    other = moved | np.isin(pool.shard, [at for at, name in enumerate(names) if name in pool.fresh])
    now, then = verdicts, pool.candidates.before
    touched = [each.keeper[other & each.gives & (each.keeper >= 0)] for each in (now, then)]
    homes = set(names[np.unique(pool.shard[np.concatenate(touched)])])
    orphaned = pool.vanished.filter(pool.vanished["gives"])["duplicate_of"]
    lost = pc.is_in(pool.rows["id"], value_set=orphaned)
    return pool.fresh | homes | set(pc.unique(pool.rows["shard"].filter(lost)).to_pylist())


def _carried(before: Mapping[str, TableRef], kind: str, names: Sequence[str]) -> dict[str, TableRef]:
    return {f"{kind}{name}": before[f"{kind}{name}"] for name in names if f"{kind}{name}" in before}


def _dropped(now: pa.Table, shards: Sequence[str]) -> dict[str, pa.Table]:
    gone = rows_of(now.filter(pc.is_valid(now["duplicate_of"])), shards)
    codes = pc.index_in(gone["shard"], value_set=pa.array(shards, pa.string())).to_numpy()
    order = np.argsort(codes, kind="stable")
    gone, found = gone.take(order).select(DUPLICATES.names).cast(DUPLICATES), np.unique(codes, return_counts=True)
    ends = np.cumsum(found[1])
    return {
        f"dropped/{shards[code]}": gone.slice(end - count, count) for code, count, end in zip(*found, ends, strict=True)
    }


def _gained(
    dataset: Dataset, shards: Sequence[Shard], pool: Pool, verdicts: Verdicts, receiving: set[str]
) -> dict[str, pa.Table]:
    """Captions of dropped pictures, renamed to the one that stays, by the shard that it lies in."""
    receives = np.array([shard.name in receiving for shard in shards], dtype=bool)
    giving = np.flatnonzero(verdicts.gives)
    giving = giving[receives[pool.shard[verdicts.keeper[giving]]]]
    ids, moved = pool.candidates.ids, dict[str, list[pa.Table]]()
    for position in np.unique(pool.shard[giving]):
        rows = giving[pool.shard[giving] == position]
        captions = dataset.read(shards[position], Step.RAW, "captions")
        place = pc.index_in(captions["id"], value_set=ids.take(pa.array(rows)))
        captions = captions.filter(pc.is_valid(place))
        keeper = verdicts.keeper[rows[place.drop_null().to_numpy()]]
        renamed = _renamed(captions, ids.take(pa.array(keeper)))
        for home in np.unique(pool.shard[keeper]):
            here = pa.array(pool.shard[keeper] == home)
            moved.setdefault(f"gained/{shards[home].name}", []).append(renamed.filter(here))
    order = [("id", "ascending"), ("origin", "ascending"), ("caption_id", "ascending")]
    return {name: pa.concat_tables(parts).sort_by(order) for name, parts in moved.items()}


def _renamed(captions: pa.Table, keepers: pa.Array) -> pa.Table:
    origins = [f"duplicate:{dropped}" for dropped in captions["id"].to_pylist()]
    return caption_table(keepers.to_pylist(), captions["text"].to_pylist(), captions["lang"].to_pylist(), origins)
