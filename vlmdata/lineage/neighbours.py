"""Which pictures are near one, by their hashes: the nearest that stays, and those that it displaced."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Shard, TableRef
from vlmdata.layout import Step
from vlmdata.lineage.lookup import row_groups
from vlmdata.lineage.view import View
from vlmdata.versions.version import version_under

_COLUMNS = ["id", "phash", "shard", "duplicate_of", "distance"]
_FURTHER = np.uint8(65)
"""Bits: no two hashes are so far apart."""


@dataclass(frozen=True)
class Neighbour:
    """Another picture: its id, its shard, and the bits in which its hash differs."""

    id: str
    shard: str
    distance: int


@dataclass
class Neighbours:
    """The nearest picture that stays, if any other does, and those that were dropped in favour of one."""

    nearest: Neighbour | None = None
    displaced: list[Neighbour] = field(default_factory=list)


def neighbours(view: View, shard: Shard, sample: str, phash: int) -> Neighbours:
    """Of a picture that stays, among all that pass the rules.

    Hashes and names of all are read, a row group at a time.
    """
    found, me = Neighbours(), pa.scalar(sample)
    for ref, homes in _tables(view, shard):
        for rows in row_groups(view.dataset, ref, _COLUMNS):
            here = pc.is_in(rows["shard"], value_set=pa.array(sorted(homes), pa.string()))
            mine = pc.and_(here, pc.fill_null(pc.equal(rows["duplicate_of"], me), False))
            found.displaced += _displaced(rows.filter(mine))
            others = pc.and_(pc.and_(here, pc.is_null(rows["duplicate_of"])), pc.not_equal(rows["id"], me))
            found.nearest = _nearer(found.nearest, rows, others.to_numpy(), phash)
    found.displaced.sort(key=lambda one: (one.distance, one.id))
    return found


def _tables(view: View, shard: Shard) -> Iterator[tuple[TableRef, Collection[str]]]:
    """Tables of `hash_index.INDEX`, and the shards whose rows in it count."""
    index = view.published.index if view.published else None
    if index is None:
        decision = view.dataset.manifest(shard, Step.DUPLICATES)
        decided = set(decision.facts["decided"])
        yield decision.tables["decided"], decided
        under = version_under(view.dataset, decision.facts["rules"], view.run.base)
        index = under.index if under else None
    else:
        decided = set()
    for number, segment in enumerate(index.segments if index else ()):
        homes = {name for name, home in index.homes.items() if home.segment == number} if index else set()
        yield segment, homes - decided


def _displaced(rows: pa.Table) -> list[Neighbour]:
    columns = (rows[name].to_pylist() for name in ("id", "shard", "distance"))
    return [Neighbour(*row) for row in zip(*columns, strict=True)]


def _nearer(known: Neighbour | None, rows: pa.Table, others: npt.NDArray[np.bool_], phash: int) -> Neighbour | None:
    if not others.any():
        return known
    distances = np.where(others, np.bitwise_count(rows["phash"].to_numpy() ^ np.uint64(phash)), _FURTHER)
    place = int(distances.argmin())
    if known is not None and known.distance <= distances[place]:
        return known
    return Neighbour(rows["id"][place].as_py(), rows["shard"][place].as_py(), int(distances[place]))
