"""Who is decided about: all pictures that pass the rules, and what a published version says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig, DedupConfig, FilterConfig
from vlmdata.filtering.decide import judge, with_names
from vlmdata.filtering.hash_index import INDEX, HashIndex
from vlmdata.filtering.look import Look
from vlmdata.filtering.rules import Rule, rules
from vlmdata.filtering.rules.opted_out import NAMES
from vlmdata.filtering.verdicts import Candidates, Verdicts
from vlmdata.layout import Step
from vlmdata.opt_out import NOBODY, OptOut
from vlmdata.schema import CAPTIONS, filled

_READ = ["id", "error", "detail", "retryable", "width", "height", "phash"]


@dataclass(frozen=True)
class Standing:
    """What a published version says of its candidates, and the decision that it rests on."""

    index: HashIndex
    decided: str
    """Path of the manifest of `Step.DUPLICATES`."""
    reads: Mapping[str, str]
    """Of each shard, a digest of all that its candidates follow from."""
    shards: Mapping[str, Shard] = field(default_factory=dict)
    """Its shards by name, with their checkpoints."""


@dataclass(frozen=True)
class Terms:
    """What a decision follows from, beside the pictures: only versions made under the same stand."""

    filtering: FilterConfig
    dedup: DedupConfig
    opt_out: OptOut = NOBODY
    look: Look | None = None
    """How pictures that are close are looked at; None: their hashes decide."""

    @classmethod
    def of(cls, config: BuildConfig) -> Terms:
        """Those of a config.

        Raises:
            ConfigError: the opt-out list cannot be read, or the model that is to look is not there.
        """
        return cls(config.filter, config.dedup, OptOut.read(config.opt_out), Look.of(config))

    def settings(self) -> dict[str, Any]:
        """As they stand in a checkpoint's key."""
        settings = {"filter": self.filtering.settings(), "dedup": self.dedup.settings(), **self.opt_out.settings()}
        return settings | ({"look": self.look.settings()} if self.look else {})

    @property
    def digest(self) -> str:
        """Of all of them."""
        return digest_of(self.settings())

    @property
    def rules(self) -> list[Rule]:
        """By which a picture becomes a candidate."""
        return list(rules(self.filtering, self.dedup, self.opt_out))


def reads_of(dataset: Dataset, shards: Sequence[Shard], terms: Terms) -> dict[str, str]:
    """Of each shard, a digest of all that its candidates follow from."""
    return {shard.name: _read_digest(dataset, shard, terms.opt_out) for shard in shards}


def reads_on(reads: Mapping[str, str], standing: Standing | None) -> list[str]:
    """The same for a key, with the version that the decision rests on."""
    stands = [standing.decided, digest_of(standing.index.model_dump())] if standing else []
    return [*(f"{name} {digest}" for name, digest in reads.items()), *stands]


def _read_digest(dataset: Dataset, shard: Shard, opt_out: OptOut) -> str:
    reads = [dataset.digest(shard, Step.FACTS, "facts", _READ)]
    reads.append(dataset.digest(shard, Step.RAW, "captions", CAPTIONS.names))
    if opt_out:
        reads.append(dataset.digest(shard, Step.RAW, "samples", NAMES))
    return digest_of(reads)


@dataclass(frozen=True)
class Pool:
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


def pool_of(
    dataset: Dataset,
    shards: Sequence[Shard],
    reads: Mapping[str, str],
    terms: Terms,
    standing: Standing | None,
) -> Pool:
    """All candidates of these shards; those that are as the version left them are not opened."""
    then = standing.reads if standing else {}
    as_they_were = [shard.name for shard in shards if then.get(shard.name) == reads[shard.name]]
    fresh = [shard for shard in shards if shard.name not in set(as_they_were)]
    same, others = _apart(standing.index.read(dataset) if standing else INDEX.empty_table(), as_they_were)
    asked = terms.rules
    parts = [_judged(dataset, shard, asked, named=bool(terms.opt_out)) for shard in fresh]
    new = _as_decided_before(pa.concat_tables([INDEX.empty_table(), *parts]), others)
    rows = pa.concat_tables([same, new])
    names = pa.array([shard.name for shard in shards], pa.string())
    return Pool(
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


def digest_of(value: Any) -> str:
    """32 hex digits of a value's JSON."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
