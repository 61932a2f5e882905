"""Near-duplicates over all shards: which pictures go, and where their captions go.

The one global step of stage 01. It reads hashes and sizes, never pictures; of
shards that are as they were when a version was published not even those, for
the version's index has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, TableRef, run_once
from vlmdata.config import DedupConfig, FilterConfig
from vlmdata.filtering.decide import judge, with_names
from vlmdata.filtering.hash_index import INDEX, HashIndex, rows_of
from vlmdata.filtering.near_duplicates import expected_chance_drops
from vlmdata.filtering.rules import Rule, rules
from vlmdata.filtering.rules.opted_out import NAMES
from vlmdata.filtering.verdicts import Candidates, Verdicts, settle
from vlmdata.layout import Step
from vlmdata.opt_out import NOBODY, OptOut
from vlmdata.schema import CAPTIONS, DUPLICATES, caption_table, filled

_READ = ["id", "error", "detail", "retryable", "width", "height", "phash"]


@dataclass(frozen=True)
class Standing:
    """What a published version says of its candidates, and the decision that it rests on."""

    index: HashIndex
    decided: str
    """Path of the manifest of `Step.DUPLICATES`."""
    reads: Mapping[str, str]
    """Of each shard, a digest of all that its candidates follow from."""


def rules_digest(filtering: FilterConfig, dedup: DedupConfig, opt_out: OptOut) -> str:
    """What a decision follows from, beside the pictures: only versions made under the same stand."""
    return _digest(_settings(filtering, dedup, opt_out))


def find_duplicates(
    dataset: Dataset,
    shards: Sequence[Shard],
    filtering: FilterConfig,
    dedup: DedupConfig,
    opt_out: OptOut = NOBODY,
    standing: Standing | None = None,
) -> list[Shard]:
    """Decide over all shards at once which pictures stay: no two within `max_distance` bits.

    What is published stays; of the others the best (`verdicts.settle`). Tables
    `dropped/<shard>` (`schema.DUPLICATES`) and `gained/<shard>`
    (`schema.CAPTIONS`: captions of dropped pictures, under the id of the one
    that stays) for the shards that have any; table `decided`
    (`hash_index.INDEX`) of all shards that are not as the version left them,
    which `facts` names. About 400 bytes of memory a sample, 240 on top of a version.
    """
    reads = {shard.name: _read_digest(dataset, shard, opt_out) for shard in shards}
    if standing and standing.reads == reads:
        # All is as it was; what was decided then stands.
        return [shard.at(Step.DUPLICATES, standing.decided) for shard in shards]
    settings = _settings(filtering, dedup, opt_out)
    stands = [standing.decided, _digest(standing.index.model_dump())] if standing else []
    everything = Shard("all", sum(shard.rows for shard in shards))

    def work(_: Manifest | None) -> Result:
        asked = rules(filtering, dedup, opt_out)
        pool = _pool(dataset, shards, reads, asked, standing, named=bool(opt_out))
        result = _result(dataset, shards, pool, settle(pool.candidates, dedup.max_distance), standing)
        chance = expected_chance_drops(len(pool.candidates.ids), dedup.max_distance)
        result.facts |= {"expected_chance_drops": round(chance, 3), "rules": _digest(settings), "reads": reads}
        return result

    names = [f"{name} {digest}" for name, digest in reads.items()]
    done = run_once(dataset, everything, Step.DUPLICATES, [*names, *stands], settings, work)
    manifest = done.manifests[Step.DUPLICATES]
    return [shard.at(Step.DUPLICATES, manifest) for shard in shards]


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


def _settings(filtering: FilterConfig, dedup: DedupConfig, opt_out: OptOut) -> dict[str, Any]:
    return {"filter": filtering.settings(), "dedup": dedup.settings(), **opt_out.settings()}


def _read_digest(dataset: Dataset, shard: Shard, opt_out: OptOut) -> str:
    reads = [dataset.digest(shard, Step.FACTS, "facts", _READ)]
    reads.append(dataset.digest(shard, Step.RAW, "captions", CAPTIONS.names))
    if opt_out:
        reads.append(dataset.digest(shard, Step.RAW, "samples", NAMES))
    return _digest(reads)


# Who is decided about


@dataclass(frozen=True)
class _Pool:
    """All candidates, and the shards that they lie in."""

    candidates: Candidates
    shard: npt.NDArray[np.int32]
    """Position among the shards."""
    rows: pa.Table
    """`INDEX`, with what was decided before."""
    fresh: set[str]
    """Shards that are not as the version left them."""
    vanished: pa.Table
    """`INDEX`: rows of the version that are candidates no more."""


def _pool(
    dataset: Dataset,
    shards: Sequence[Shard],
    reads: Mapping[str, str],
    asked: Sequence[Rule],
    standing: Standing | None,
    *,
    named: bool,
) -> _Pool:
    then = standing.reads if standing else {}
    as_they_were = [shard.name for shard in shards if then.get(shard.name) == reads[shard.name]]
    fresh = [shard for shard in shards if shard.name not in set(as_they_were)]
    same, others = _apart(standing.index.read(dataset) if standing else INDEX.empty_table(), as_they_were)
    parts = [_judged(dataset, shard, asked, named=named) for shard in fresh]
    new = _as_decided_before(pa.concat_tables([INDEX.empty_table(), *parts]), others)
    rows = pa.concat_tables([same, new])
    names = pa.array([shard.name for shard in shards], pa.string())
    return _Pool(
        candidates=_candidates(rows),
        shard=pc.index_in(rows["shard"], value_set=names).to_numpy().astype(np.int32),
        rows=rows,
        fresh={shard.name for shard in fresh},
        vanished=others.filter(pc.invert(pc.is_in(others["id"], value_set=new["id"]))),
    )


def _apart(known: pa.Table, shards: Sequence[str]) -> tuple[pa.Table, pa.Table]:
    """Rows of these shards, and the others; most often there are none, and the rows are many."""
    theirs = pc.is_in(known["shard"], value_set=pa.array(shards, pa.string()))
    if pc.all(theirs, min_count=0).as_py():
        return known, known.slice(0, 0)
    return known.filter(theirs), known.filter(pc.invert(theirs))


def _judged(dataset: Dataset, shard: Shard, asked: Sequence[Rule], *, named: bool) -> pa.Table:
    """Rows of `INDEX`: a shard's pictures that pass the rules, nothing being decided yet."""
    facts = dataset.read(shard, Step.FACTS, "facts", _READ)
    if named:
        facts = with_names(facts, dataset.read(shard, Step.RAW, "samples", NAMES))
    passes, _ = judge(facts["id"], facts, asked)
    facts = facts.filter(passes)
    pixels = pc.multiply(facts["width"].cast(pa.int64()), facts["height"].cast(pa.int64()))
    columns = {"id": facts["id"], "phash": facts["phash"], "pixels": pixels}
    return filled(INDEX, facts.num_rows, **columns, shard=shard.name, published=False, gives=False)


def _as_decided_before(rows: pa.Table, known: pa.Table) -> pa.Table:
    """The rows, with what is known of those that were candidates already, wherever they lay."""
    if not known.num_rows:
        return rows
    known = known.combine_chunks()
    at = pc.index_in(rows["id"], value_set=known["id"])
    told = {name: known[name].take(at) for name in ("published", "duplicate_of", "distance", "gives")}
    told |= {name: pc.fill_null(told[name], False) for name in ("published", "gives")}
    return pa.table([told.get(name, rows[name]) for name in INDEX.names], schema=INDEX)


def _candidates(rows: pa.Table) -> Candidates:
    ids = rows["id"].combine_chunks()
    ids = pa.concat_arrays(ids.chunks) if isinstance(ids, pa.ChunkedArray) else ids
    return Candidates(
        ids=ids,
        hashes=rows["phash"].to_numpy().astype(np.uint64),
        pixels=rows["pixels"].to_numpy().astype(np.int64),
        published=rows["published"].to_numpy().astype(np.bool_),
        before=Verdicts(
            keeper=_positions(rows["duplicate_of"], ids),
            distance=pc.fill_null(rows["distance"], -1).to_numpy().astype(np.int16),
            gives=rows["gives"].to_numpy().astype(np.bool_),
        ),
    )


def _positions(names: pa.ChunkedArray, ids: pa.Array) -> npt.NDArray[np.int64]:
    """Where each name stands among the ids; -1: nowhere. Only the names are hashed, which are few."""
    named = pc.unique(names.drop_null())
    place = np.full(len(named) + 1, -1, np.int64)
    of_id = pc.index_in(ids, value_set=named).fill_null(-1).to_numpy()
    there = np.flatnonzero(of_id >= 0)
    place[of_id[there]] = there
    place[-1] = -1
    found: npt.NDArray[np.int64] = place[pc.index_in(names, value_set=named, skip_nulls=True).fill_null(-1).to_numpy()]
    return found


# What is decided


def _result(
    dataset: Dataset, shards: Sequence[Shard], pool: _Pool, verdicts: Verdicts, standing: Standing | None
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


def _told(pool: _Pool, verdicts: Verdicts) -> pa.Table:
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


def _receiving(pool: _Pool, verdicts: Verdicts, moved: npt.NDArray[np.bool_], names: Any) -> set[str]:
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
    dataset: Dataset, shards: Sequence[Shard], pool: _Pool, verdicts: Verdicts, receiving: set[str]
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


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
