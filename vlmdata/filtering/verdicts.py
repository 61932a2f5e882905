"""Which of all candidates stay, when some of them are published: pure arrays, no tables, no store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.filtering.near_duplicates import Looks, close_to_another, keep_best

Positions = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What becomes of n candidates.

    Attributes:
        keeper: int64 (n,), position of the one that stays and that a dropped one is within the radius of; -1: it stays.
        distance: int16 (n,), Hamming distance in bits to it; -1: it stays.
        gives: bool (n,), a dropped one's captions go to its keeper, for that was not published yet.
    """

    keeper: Positions
    distance: npt.NDArray[np.int16]
    gives: Flags

    @property
    def kept(self) -> Flags:
        """Those that stay."""
        return np.asarray(self.keeper < 0)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pictures that pass the rules; row i of every array is one picture.

    Attributes:
        ids: string (n,), no two equal.
        hashes: uint64 (n,).
        pixels: int64 (n,).
        published: bool (n,); no two of these are within the radius of one another.
        before: what was decided of each when the last version was made; all -1 where nothing was.
    """

    ids: pa.Array
    hashes: npt.NDArray[np.uint64]
    pixels: npt.NDArray[np.int64]
    published: Flags
    before: Verdicts


@dataclass(frozen=True, slots=True)
class Seen:
    """Embeddings of the candidates that were looked at.

    Attributes:
        row: int64 (n,), where a candidate's vector is; -1: it was not looked at, for nobody is near.
        vectors: float16 (k, d).
        at_least: the smallest cosine of duplicates.
    """

    row: Positions
    vectors: npt.NDArray[np.float16]
    at_least: float

    def of(self, rest: Positions, standing: Positions) -> Looks:
        """Of these, all of which were looked at, against those."""
        return Looks(self.vectors[self.row[rest]], self.vectors[self.row[standing]], self.at_least)


def near_another(candidates: Candidates, radius: int) -> Flags:
    """Whom to look at before it is settled which pictures are duplicates: bool (n,)."""
    standing, rest = _sides(candidates)
    near = np.zeros(len(candidates.hashes), dtype=np.bool_)
    near[rest], near[standing] = close_to_another(candidates.hashes[rest], radius, against=candidates.hashes[standing])
    return near


def settle(candidates: Candidates, radius: int, seen: Seen | None = None) -> Verdicts:
    """Drop the near-duplicates among the candidates: no two that stay are within the radius.

    If they were `seen`, no two that stay are within the radius and look alike.
    What is published stays. Of the others the best stays: most pixels, then
    smallest id. A dropped one names the nearest published one, else the nearest
    that outranks it; as long as the one that it named before stays, it goes on
    naming that.
    """
    published, before = candidates.published, candidates.before
    standing, rest = _sides(candidates)
    keeper = np.where(published, -1, before.keeper)
    distance = np.where(published, np.int16(-1), before.distance)
    gives = before.gives & ~published
    keeper[rest], distance[rest], gives[rest] = -1, -1, False
    if seen is not None:
        standing, rest = (rows[seen.row[rows] >= 0] for rows in (standing, rest))
    standing = _by_hash(candidates, standing)
    found = keep_best(
        candidates.hashes[rest],
        _rank(candidates, rest),
        radius,
        against=candidates.hashes[standing],
        looks=seen.of(rest, standing) if seen else None,
    )
    by_published = found.duplicate_of_published >= 0
    by_other = found.duplicate_of >= 0
    keeper[rest[by_other]] = rest[found.duplicate_of[by_other]]
    keeper[rest[by_published]] = standing[found.duplicate_of_published[by_published]]
    distance[rest] = found.distance
    gives[rest] = by_other
    return _unmoved(Verdicts(keeper, distance, gives), before)


def _sides(candidates: Candidates) -> tuple[Positions, Positions]:
    """Those that stay whatever else, and those to be decided about."""
    published = candidates.published
    return np.flatnonzero(published), np.flatnonzero(~(published | _names_one_of(candidates.before, published)))


def _by_hash(candidates: Candidates, rows: Positions) -> Positions:
    """Of two that are as near the one with the smaller hash is named, then the one with the smaller id."""
    rows = rows[np.argsort(candidates.hashes[rows])]
    hashes = candidates.hashes[rows]
    if not (hashes[1:] == hashes[:-1]).any():
        return rows
    columns = pa.table({"hash": hashes, "id": candidates.ids.take(pa.array(rows))})
    order: Positions = pc.sort_indices(columns, sort_keys=[("hash", "ascending"), ("id", "ascending")]).to_numpy()
    return rows[order]


def _names_one_of(verdicts: Verdicts, flags: Flags) -> Flags:
    """Rows whose keeper is flagged."""
    named = verdicts.keeper >= 0
    found = np.zeros_like(named)
    found[named] = flags[verdicts.keeper[named]]
    return found


def _unmoved(now: Verdicts, before: Verdicts) -> Verdicts:
    """A dropped one names whom it named before, if that one stays."""
    same = ~now.kept & _names_one_of(before, now.kept)
    return Verdicts(
        np.where(same, before.keeper, now.keeper),
        np.where(same, before.distance, now.distance),
        np.where(same, before.gives, now.gives),
    )


def _rank(candidates: Candidates, rows: Positions) -> Positions:
    """0 for the best of these rows: most pixels, then smallest id."""
    columns = pa.table({"pixels": candidates.pixels[rows], "id": candidates.ids.take(pa.array(rows))})
    best_first = pc.sort_indices(columns, sort_keys=[("pixels", "descending"), ("id", "ascending")]).to_numpy()
    rank = np.empty(len(best_first), np.int64)
    rank[best_first] = np.arange(len(best_first))
    return rank
