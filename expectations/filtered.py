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
from vlmdata.filtering.near_duplicates import pairs_within
from vlmdata.layout import Step

_LOOKED_AT = 20_000
"""Kept hashes that are compared with one another."""


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
    """For an even sample of rows, the id of another kept row within the radius."""
    step = max(1, -(-rows.num_rows // _LOOKED_AT))
    looked_at = np.arange(0, rows.num_rows, step)
    hashes = rows["phash"].to_numpy()[looked_at].astype(np.uint64)
    first, second, _ = pairs_within(hashes, radius)
    other = np.full(rows.num_rows, -1)
    other[looked_at[second]] = looked_at[first]
    return pc.take(rows["id"], pa.array(other, mask=other < 0))


def expectations(config: BuildConfig) -> list[Any]:
    """The rules of the stage."""
    from great_expectations import expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="copies", max_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="shorter_side", min_value=config.filter.min_side),
        gxe.ExpectColumnValuesToBeNull(column="alike"),
    ]
