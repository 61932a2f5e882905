"""What scorers measure in a shard's pictures: a checkpoint for each scorer, and none of them knows a bound."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard
from vlmdata.layout import Step
from vlmdata.measure.one_core import one_core_threads
from vlmdata.progress import advance
from vlmdata.quality.pictures import ids_of, one_pass, opened, pictures_of
from vlmdata.quality.scorers.base import Scorer


def marks(dataset: Dataset, shard: Shard, scorers: Iterable[Scorer]) -> dict[str, Manifest]:
    """For each scorer's column a manifest with table `marks`: id, and the float32 `value`, null if it failed.

    A scorer's checkpoint is named by what it is and by the pictures: a new
    scorer measures alone, and a moved bound measures nothing.
    """
    asked = {one.column: one for one in scorers}

    def work(missing: Sequence[str]) -> Mapping[str, Result]:
        ids = ids_of(dataset, shard)
        pictures = pictures_of(dataset, shard, ids)
        measured = _measured(pictures, [asked[column] for column in missing])
        return {column: _result(ids, values) for column, values in zip(missing, measured, strict=True)}

    wanted = {column: (Step.MARKS, {"scorer": one.identity()}) for column, one in asked.items()}
    return one_pass(dataset, shard, wanted, work)


def _measured(pictures: Sequence[pa.Buffer], scorers: Sequence[Scorer]) -> list[pa.Array]:
    """One array of n values a scorer; each picture is decoded once for all of them."""

    def measure(data: pa.Buffer) -> list[float | None]:
        image = opened(data)
        values = [None if image is None else one.measure(image) for one in scorers]
        advance(Step.MARKS, 1)
        return [None if value is None or math.isnan(value) else value for value in values]

    rows = list(one_core_threads().map(measure, pictures))
    return [pa.array([row[at] for row in rows], pa.float32()) for at in range(len(scorers))]


def _result(ids: pa.Array, values: pa.Array) -> Result:
    counts = Counts(came=len(ids), kept=len(ids) - values.null_count, failed=values.null_count)
    return Result({"marks": pa.table({"id": ids, "value": values})}, samples=counts)
