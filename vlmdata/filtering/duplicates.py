"""Near-duplicates over all shards: which pictures go, and where their captions go.

The one global step of stage 01. It reads hashes and sizes, never pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, run_once
from vlmdata.config import DedupConfig, FilterConfig
from vlmdata.filtering.decide import judge, with_names
from vlmdata.filtering.near_duplicates import Decision, expected_chance_drops, keep_best
from vlmdata.filtering.rules import Rule, rules
from vlmdata.filtering.rules.opted_out import NAMES
from vlmdata.layout import Step
from vlmdata.opt_out import NOBODY, OptOut
from vlmdata.schema import CAPTIONS, DUPLICATES, caption_table, filled

_READ = ["id", "error", "detail", "retryable", "width", "height", "phash"]


def find_duplicates(
    dataset: Dataset,
    shards: Sequence[Shard],
    filtering: FilterConfig,
    dedup: DedupConfig,
    opt_out: OptOut = NOBODY,
) -> list[Shard]:
    """Decide over all shards at once which pictures stay: no two within `max_distance` bits.

    The best stays (most pixels, then smallest id). Tables `dropped/<shard>`
    (`schema.DUPLICATES`) and `gained/<shard>` (`schema.CAPTIONS`: captions of
    dropped pictures, under the id of the one that stays) for the shards that
    have any. About 100 bytes of memory a sample.
    """
    reads = [dataset.digest(shard, Step.FACTS, "facts", _READ) for shard in shards]
    reads += [dataset.digest(shard, Step.RAW, "captions", CAPTIONS.names) for shard in shards]
    if opt_out:
        reads += [dataset.digest(shard, Step.RAW, "samples", NAMES) for shard in shards]
    settings = {"filter": filtering.settings(), "dedup": dedup.settings(), "shards": [s.name for s in shards]}
    settings |= opt_out.settings()
    everything = Shard("all", sum(shard.rows for shard in shards))

    def work(_: Manifest | None) -> Result:
        return _work(dataset, shards, filtering, dedup, opt_out)

    done = run_once(dataset, everything, Step.DUPLICATES, reads, settings, work)
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


@dataclass(frozen=True)
class _Candidates:
    """Pictures that pass the rules, over all shards; row i of every array is one picture."""

    ids: pa.Array
    hashes: npt.NDArray[np.uint64]
    pixels: npt.NDArray[np.int64]
    shard: npt.NDArray[np.int32]


def _work(
    dataset: Dataset, shards: Sequence[Shard], filtering: FilterConfig, dedup: DedupConfig, opt_out: OptOut
) -> Result:
    candidates = _candidates(dataset, shards, rules(filtering, dedup, opt_out), named=bool(opt_out))
    decision = keep_best(candidates.hashes, _rank(candidates), dedup.max_distance)
    tables = _dropped(shards, candidates, decision)
    tables |= _gained(dataset, shards, candidates, decision)
    kept, total = int(decision.kept.sum()), len(decision.kept)
    chance = expected_chance_drops(total, dedup.max_distance)
    counts = Counts(came=total, kept=kept, rejected=total - kept)
    return Result(tables, samples=counts, facts={"expected_chance_drops": round(chance, 3)})


def _candidates(dataset: Dataset, shards: Sequence[Shard], asked: Sequence[Rule], *, named: bool) -> _Candidates:
    ids, hashes, pixels, owner = [], [], [], []
    for position, shard in enumerate(shards):
        facts = dataset.read(shard, Step.FACTS, "facts", _READ)
        if named:
            facts = with_names(facts, dataset.read(shard, Step.RAW, "samples", NAMES))
        passes, _ = judge(facts["id"], facts, asked)
        facts = facts.filter(passes)
        ids += facts["id"].chunks
        hashes.append(facts["phash"].to_numpy())
        pixels.append(facts["width"].to_numpy().astype(np.int64) * facts["height"].to_numpy())
        owner.append(np.full(facts.num_rows, position, np.int32))
    return _Candidates(
        ids=pa.concat_arrays(ids) if ids else pa.array([], pa.string()),
        hashes=np.concatenate(hashes).astype(np.uint64),
        pixels=np.concatenate(pixels).astype(np.int64),
        shard=np.concatenate(owner),
    )


def _rank(candidates: _Candidates) -> npt.NDArray[np.int64]:
    """0 for the best: most pixels, then smallest id."""
    columns = pa.table({"pixels": candidates.pixels, "id": candidates.ids})
    best_first = pc.sort_indices(columns, sort_keys=[("pixels", "descending"), ("id", "ascending")]).to_numpy()
    rank = np.empty(len(best_first), np.int64)
    rank[best_first] = np.arange(len(best_first))
    return rank


def _dropped(shards: Sequence[Shard], candidates: _Candidates, decision: Decision) -> dict[str, pa.Table]:
    tables = {}
    gone = np.flatnonzero(~decision.kept)
    for position in np.unique(candidates.shard[gone]):
        rows = gone[candidates.shard[gone] == position]
        tables[f"dropped/{shards[position].name}"] = filled(
            DUPLICATES,
            len(rows),
            id=candidates.ids.take(pa.array(rows)),
            duplicate_of=candidates.ids.take(pa.array(decision.duplicate_of[rows])),
            distance=pa.array(decision.distance[rows]),
        )
    return tables


def _gained(
    dataset: Dataset, shards: Sequence[Shard], candidates: _Candidates, decision: Decision
) -> dict[str, pa.Table]:
    """Captions of dropped pictures, renamed to the one that stays, by the shard that it lies in."""
    gone = np.flatnonzero(~decision.kept)
    moved: dict[str, list[pa.Table]] = {}
    for position in np.unique(candidates.shard[gone]):
        rows = gone[candidates.shard[gone] == position]
        captions = dataset.read(shards[position], Step.RAW, "captions")
        place = pc.index_in(captions["id"], value_set=candidates.ids.take(pa.array(rows)))
        captions = captions.filter(pc.is_valid(place))
        source = rows[place.drop_null().to_numpy()]
        keeper = decision.duplicate_of[source]
        renamed = _renamed(captions, candidates.ids.take(pa.array(keeper)))
        for home in np.unique(candidates.shard[keeper]):
            here = pa.array(candidates.shard[keeper] == home)
            moved.setdefault(f"gained/{shards[home].name}", []).append(renamed.filter(here))
    order = [("id", "ascending"), ("origin", "ascending"), ("caption_id", "ascending")]
    return {name: pa.concat_tables(parts).sort_by(order) for name, parts in moved.items()}


def _renamed(captions: pa.Table, keepers: pa.Array) -> pa.Table:
    origins = [f"duplicate:{dropped}" for dropped in captions["id"].to_pylist()]
    return caption_table(keepers.to_pylist(), captions["text"].to_pylist(), captions["lang"].to_pylist(), origins)
