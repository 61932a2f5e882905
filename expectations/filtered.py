"""01_filtered: sizes above the bound, and no two kept pictures alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from expectations.columns import some_of
from expectations.rule import Rule, breaking, none_may
from vlmdata.config import BuildConfig, DedupConfig
from vlmdata.filtering.look import half_vectors
from vlmdata.filtering.near_duplicates import (
    Hashes,
    Looks,
    Positions,
    Vectors,
    close_to_another,
    keep_best,
    pairs_within,
)
from vlmdata.schema import FILTERED

SAMPLES = some_of(FILTERED, "id", "width", "height", "phash")
CAPTIONS = pa.schema([])

_MOST_PAIRS = 1_000_000
"""Pairs that are listed; of more, which only a broken set has, those are counted that would have to go."""

Flags = npt.NDArray[np.bool_]


def rules(samples: pa.Table, captions: pa.Table, config: BuildConfig, looks: pa.Table | None = None) -> list[Rule]:
    """The rules of the stage.

    Args:
        samples: `SAMPLES` of all shards.
        captions: Nothing is asked of them.
        config: Bounds.
        looks: Embeddings (id, embedding) of pictures that are close to others; None: the hash decides.
    """
    return [_min_side(samples, config.filter.min_side), _no_near_duplicates(samples, config.dedup, looks)]


def _min_side(samples: pa.Table, bound: int) -> Rule:
    shorter = pc.min_element_wise(samples["width"], samples["height"], skip_nulls=False)
    figure = breaking(samples["id"], pc.greater_equal(shorter, bound), shorter)
    return none_may("min_side", f"the shorter side is at least {bound} px", "samples_with_shorter_side_below", figure)


def _no_near_duplicates(samples: pa.Table, dedup: DedupConfig, looks: pa.Table | None) -> Rule:
    radius = dedup.max_distance
    known = pc.is_valid(samples["phash"])
    hashes = pc.fill_null(samples["phash"], 0).to_numpy()
    if looks is None or dedup.confirm is None:
        other = alike(hashes, radius, known.to_numpy())
    else:
        other = looking_alike(hashes, radius, known.to_numpy(), _vectors(samples["id"], looks), dedup.confirm)
    twins = pc.take(samples["id"], pa.array(other, mask=other < 0))
    figure = breaking(samples["id"], pc.and_(known, pc.is_null(twins)), twins)
    unless = "" if dedup.confirm is None else f" and embeddings with a cosine of {dedup.confirm} or more"
    asked = f"no two kept pictures have hashes within {radius} bits{unless} (every pair compared)"
    return none_may(
        "no_near_duplicates", asked, "samples_like_an_earlier_one", figure, "ExpectNoTwoHashesWithin", radius=radius
    )


def alike(hashes: Hashes, radius: int, known: Flags | None = None) -> Positions:
    """For each row an earlier one within the radius; -1: there is none. Every pair is compared.

    Args:
        hashes: uint64 (n).
        radius: Hamming distance, bits.
        known: Which rows have a hash (n); none given: all have.
    """
    rows = np.arange(len(hashes)) if known is None else np.flatnonzero(known)
    other = np.full(len(hashes), -1)
    earlier, later = _pairs(hashes[rows], radius)
    other[rows[later]] = rows[earlier]
    return other


def looking_alike(
    hashes: Hashes, radius: int, known: Flags, vectors: tuple[Positions, Vectors], at_least: float
) -> Positions:
    """For each row another one within the radius that it looks like; -1: there is none.

    A row that is within the radius of another, and was not looked at, is told to be like itself.

    Args:
        hashes: uint64 (n).
        radius: Hamming distance, bits.
        known: Which rows have a hash (n).
        vectors: Where each row's embedding is (n; -1: it has none), and float16 (k, d).
        at_least: The smallest cosine of those that look alike.
    """
    at, embeddings = vectors
    rows = np.flatnonzero(known)
    rows = rows[close_to_another(hashes[rows], radius)[0]]
    other = np.full(len(hashes), -1)
    unseen = rows[at[rows] < 0]
    other[unseen] = unseen
    rows = rows[at[rows] >= 0]
    looks = Looks(embeddings[at[rows]], embeddings[:0], at_least)
    twin = keep_best(hashes[rows], np.arange(len(rows)), radius, looks=looks).duplicate_of
    other[rows[twin >= 0]] = rows[twin[twin >= 0]]
    return other


def _vectors(ids: pa.ChunkedArray, looks: pa.Table) -> tuple[Positions, Vectors]:
    if not looks.num_rows:
        return np.full(len(ids), -1), np.empty((0, 1), np.float16)
    at = pc.fill_null(pc.index_in(ids, value_set=looks["id"]), -1)
    return at.to_numpy().astype(np.int64), half_vectors(looks["embedding"])


def _pairs(hashes: Hashes, radius: int) -> tuple[Positions, Positions]:
    """Pairs within the radius, the earlier row first."""
    try:
        first, second, _ = pairs_within(hashes, radius, limit=_MOST_PAIRS)
    except ValueError:
        twin = keep_best(hashes, np.arange(len(hashes)), radius).duplicate_of
        second = np.flatnonzero(twin >= 0)
        first = twin[second]
    return first, second
