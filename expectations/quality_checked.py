"""03_quality_checked: every kept sample scores above the accept bound in force."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from expectations.columns import columns
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.layout import Step
from vlmdata.quality.judges import judges


def frame(dataset: Dataset, shards: Sequence[Shard], config: BuildConfig) -> pa.Table:
    """One row a kept sample: id, margin (its best score less the accept bound of that caption's judge)."""
    bench = judges(config.quality)
    rows = columns(dataset, shards, Step.CHECKED, "captions", ["id", "score", "language"])
    encoded = rows["language"].combine_chunks().dictionary_encode()
    bounds = [float(judge.accept_above) if (judge := bench.of(tag)) else None for tag in encoded.dictionary.to_pylist()]
    bound = pa.array(bounds, pa.float64()).take(encoded.indices)
    margins = pa.table({"id": rows["id"], "margin": pc.subtract(pc.cast(rows["score"], pa.float64()), bound)})
    best = margins.group_by("id").aggregate([("margin", "max")])
    ids = columns(dataset, shards, Step.CHECKED, "samples", ["id"])["id"]
    return pa.table({"id": ids, "margin": best["margin_max"].take(pc.index_in(ids, value_set=best["id"]))})


def expectations(config: BuildConfig) -> list[Any]:
    """The rules of the stage."""
    from great_expectations import expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="copies", max_value=1),
        gxe.ExpectColumnValuesToNotBeNull(column="margin"),
        gxe.ExpectColumnValuesToBeBetween(column="margin", min_value=0, strict_min=True),
    ]
