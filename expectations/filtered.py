"""01_filtered: sizes above the bound, and no two kept pictures alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from expectations.columns import columns
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.filtering.near_duplicates import Hashes, Positions, keep_best
from vlmdata.layout import Step

_LOOKED_AT = 20_000
"""Kept hashes, an even sample, that are compared with all others."""
_AT_ONCE = 100_000
"""Kept hashes that are compared with one another: all pairs of a set so large; a million rows take seconds."""


def frame(dataset: Dataset, shards: Sequence[Shard], config: BuildConfig) -> pa.Table:
    """One row a kept sample: id, shorter_side (px), alike (id of a kept sample within the radius, or null)."""
    rows = columns(dataset, shards, Step.FILTERED, "samples", ["id", "width", "height", "phash"])
    return pa.table(
        {
            "id": rows["id"],
            "shorter_side": pc.min_element_wise(rows["width"], rows["height"]),
            "alike": _alike(rows, config.dedup.max_distance),
        }
    )


def _alike(rows: pa.Table, radius: int) -> pa.Array:
    """For each row the id of another within the radius, if one is of the same part or of an even sample of all."""
    hashes = rows["phash"].to_numpy().astype(np.uint64)
    everyone = np.arange(rows.num_rows)
    sample = everyone[:: max(1, -(-rows.num_rows // _LOOKED_AT))]
    other = np.full(rows.num_rows, -1)
    _compare(hashes, sample, sample[:0], radius, other)
    rest = np.setdiff1d(everyone, sample, assume_unique=True)
    for start in range(0, len(rest), _AT_ONCE):
        _compare(hashes, rest[start : start + _AT_ONCE], sample, radius, other)
    return pc.take(rows["id"], pa.array(other, mask=other < 0))


def _compare(hashes: Hashes, part: Positions, sample: Positions, radius: int, other: Positions) -> None:
    """Note in `other` which row each of a part is alike, be it of the part or of the sample."""
    found = keep_best(hashes[part], np.arange(len(part)), radius, against=hashes[sample])
    for twin, among in ((found.duplicate_of, part), (found.duplicate_of_published, sample)):
        alike = twin >= 0
        other[part[alike]] = among[twin[alike]]


def expectations(config: BuildConfig) -> list[Any]:
    """The rules of the stage."""
    from great_expectations import expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="copies", max_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="shorter_side", min_value=config.filter.min_side),
        gxe.ExpectColumnValuesToBeNull(column="alike"),
    ]
