"""01_filtered: sizes above the bound, and no two kept pictures alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from expectations.columns import some_of
from expectations.rule import Rule, breaking, none_may
from vlmdata.config import BuildConfig
from vlmdata.filtering.near_duplicates import Hashes, Positions, keep_best, pairs_within
from vlmdata.schema import FILTERED

SAMPLES = some_of(FILTERED, "id", "width", "height", "phash")
CAPTIONS = pa.schema([])

_MOST_PAIRS = 1_000_000
"""Pairs that are listed; of more, which only a broken set has, those are counted that would have to go."""

Flags = npt.NDArray[np.bool_]


def rules(samples: pa.Table, captions: pa.Table, config: BuildConfig) -> list[Rule]:
    """The rules of the stage."""
    return [_min_side(samples, config.filter.min_side), _no_near_duplicates(samples, config.dedup.max_distance)]


def _min_side(samples: pa.Table, bound: int) -> Rule:
    shorter = pc.min_element_wise(samples["width"], samples["height"], skip_nulls=False)
    figure = breaking(samples["id"], pc.greater_equal(shorter, bound), shorter)
    return none_may("min_side", f"the shorter side is at least {bound} px", "samples_with_shorter_side_below", figure)


def _no_near_duplicates(samples: pa.Table, radius: int) -> Rule:
    known = pc.is_valid(samples["phash"])
    other = alike(pc.fill_null(samples["phash"], 0).to_numpy(), radius, known.to_numpy())
    twins = pc.take(samples["id"], pa.array(other, mask=other < 0))
    figure = breaking(samples["id"], pc.and_(known, pc.is_null(twins)), twins)
    asked = f"no two kept pictures have hashes within {radius} bits (every pair compared)"
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


def _pairs(hashes: Hashes, radius: int) -> tuple[Positions, Positions]:
    """Pairs within the radius, the earlier row first."""
    try:
        first, second, _ = pairs_within(hashes, radius, limit=_MOST_PAIRS)
    except ValueError:
        twin = keep_best(hashes, np.arange(len(hashes)), radius).duplicate_of
        second = np.flatnonzero(twin >= 0)
        first = twin[second]
    return first, second
