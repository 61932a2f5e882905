"""A run's checkpoints, read shard by shard and counted: its health."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Shard
from vlmdata.health import reading
from vlmdata.health.buckets import LENGTHS as LENGTH_BUCKETS
from vlmdata.health.buckets import SHAPES, SIDES, bin_low
from vlmdata.health.counting import common_values, count
from vlmdata.health.health import DISTRIBUTIONS, JUDGED, SCORES, STAGES, Health
from vlmdata.health.lengths import LENGTHS, lengths
from vlmdata.health.reading import LENGTH_UNITS
from vlmdata.layout import Stage
from vlmdata.runs import Run
from vlmdata.status import describe_run


def measure_health(run: Run) -> Health:
    """Count what a run kept at the last checkpoint that it reached, and every score that it gave.

    Memory holds a few shards and the distinct values, whatever the size of the set.

    Args:
        run: Finished, stopped or under way.

    Raises:
        StoreError: a checkpoint is gone or damaged.
    """
    stage, shards = _last_checkpoint(run)
    told = describe_run(run)["stages"]
    pictures = _pictures(run, stage, shards)
    written, length_counts = _captions(run, stage, shards)
    judged, scores, truncated = _scores(run, shards if stage is Stage.CHECKED else ())
    distributions = pa.concat_tables([*pictures, *written, *(_binned(*pair) for pair in length_counts.items())])
    figures = _figures(distributions, judged, told)
    return Health(
        dataset=run.dataset.name,
        run=run.number,
        stage=stage.value,
        figures={**figures, "captions_truncated": truncated},
        distributions=distributions,
        lengths=pa.concat_tables([LENGTHS.empty_table(), *(lengths(*pair) for pair in length_counts.items())]),
        scores=scores,
        judged=judged,
        stages=pa.Table.from_pylist([{"stage": name, **row} for name, row in told.items()], schema=STAGES),
    )


def _last_checkpoint(run: Run) -> tuple[Stage, Sequence[Shard]]:
    """The export is cut from what 03 kept, and tells its own in its card."""
    for stage in (Stage.CHECKED, Stage.CAPTIONED, Stage.FILTERED, Stage.RAW):
        if report := run.stage(stage):
            return stage, report.shards
    return Stage.RAW, ()


def _pictures(run: Run, stage: Stage, shards: Sequence[Shard]) -> list[pa.Table]:
    tables = reading.images(run.dataset, stage, shards)
    groups = [("size",), ("aspect_ratio",), ("license",), ("source",)]
    sizes, shapes, licences, sources = count(reading.IMAGES, tables, groups)
    return [
        _bucketed("size", sizes, SIDES.labels, may_be_absent=SIDES.labels[:1]),
        _bucketed("aspect_ratio", shapes, SHAPES),
        _ranked("license", licences),
        _ranked("source", sources),
    ]


def _captions(run: Run, stage: Stage, shards: Sequence[Shard]) -> tuple[list[pa.Table], dict[str, pa.Table]]:
    """Distributions of languages and origins; and how often each length occurs in each language, by unit."""
    tables = reading.captions(run.dataset, stage, shards)
    groups = [("language",), ("origin",), *(("language", unit) for unit in LENGTH_UNITS)]
    languages, origins, *counted = count(reading.CAPTIONS, tables, groups)
    folded = {unit: common_values(table, "language") for unit, table in zip(LENGTH_UNITS, counted, strict=True)}
    return [_ranked("language", languages), _ranked("origin", origins)], folded


def _bucketed(what: str, counted: pa.Table, labels: Sequence[str], may_be_absent: Sequence[str] = ()) -> pa.Table:
    """Every bucket in its order, empty ones too; none at all if nothing was measured."""
    known = counted.filter(pc.is_valid(counted[what]))
    found = dict(zip(known[what].to_pylist(), known["count"].to_pylist(), strict=True))
    rows = [
        {"what": what, "value": label, "count": found.get(place, 0)}
        for place, label in enumerate(labels)
        if found and (place in found or label not in may_be_absent)
    ]
    return pa.Table.from_pylist(rows, schema=DISTRIBUTIONS)


def _ranked(what: str, counted: pa.Table) -> pa.Table:
    """The most frequent value first."""
    table = common_values(counted, what).sort_by([("count", "descending"), (what, "ascending")])
    return pa.table([pa.repeat(what, table.num_rows), table[what], table["count"]], schema=DISTRIBUTIONS)


def _binned(unit: str, counted: pa.Table) -> pa.Table:
    """Lengths of captions in buckets, the empty ones left out."""
    known = counted.filter(pc.is_valid(counted[unit]))
    buckets = pa.table({"bucket": LENGTH_BUCKETS.of(known[unit].to_numpy()), "count": known["count"]})
    total = buckets.group_by("bucket").aggregate([("count", "sum")]).sort_by("bucket")
    labels = pa.array(LENGTH_BUCKETS.labels).take(total["bucket"])
    return pa.table([pa.repeat(unit, total.num_rows), labels, total["count_sum"]], schema=DISTRIBUTIONS)


def _scores(run: Run, shards: Sequence[Shard]) -> tuple[pa.Table, pa.Table, int]:
    """`JUDGED`, `SCORES`, and how many captions were longer than their model reads."""
    tables = reading.scored(run.dataset, shards)
    groups = [("model", "language", "bin"), ("truncated",)]
    binned, cut = count(reading.SCORED, tables, groups, total="billionths")
    binned = common_values(binned, "language")
    truncated = pc.sum(cut["count"].filter(pc.fill_null(cut["truncated"], False))).as_py() or 0
    return _judged(binned), _histogram(binned), truncated


def _judged(binned: pa.Table) -> pa.Table:
    scored = pc.if_else(pc.is_valid(binned["bin"]), binned["count"], 0)
    rows = binned.append_column("scored", scored).group_by(["language", "model"])
    table = rows.aggregate([("count", "sum"), ("scored", "sum"), ("total", "sum")])
    number = pc.if_else(pc.greater(table["scored_sum"], 0), table["scored_sum"], None)
    mean = pc.divide(pc.divide(table["total_sum"], 1e9), pc.cast(number, pa.float64()))
    columns = [table["language"], table["model"], table["count_sum"], table["scored_sum"], mean]
    order = [("count", "descending"), ("language", "ascending"), ("model", "ascending")]
    return pa.table(columns, schema=JUDGED).sort_by(order)


def _histogram(binned: pa.Table) -> pa.Table:
    rows = binned.filter(pc.is_valid(binned["bin"]))
    bins = rows["bin"].to_pylist()
    borders = [pa.array([bin_low(position + end) for position in bins], pa.float64()) for end in (0, 1)]
    table = pa.table([rows["model"], rows["language"], *borders, rows["count"]], schema=SCORES)
    return table.sort_by([("language", "ascending"), ("model", "ascending"), ("low", "ascending")])


def _figures(distributions: pa.Table, judged: pa.Table, told: dict[str, Any]) -> dict[str, float | None]:
    images, captions = (_total(distributions, what) for what in ("license", "language"))
    scored = pc.sum(judged["scored"]).as_py() or 0
    return {
        "images": images,
        "captions": captions,
        "captions_an_image": captions / images if images else None,
        "duplicates_removed": told[Stage.FILTERED]["reasons"].get("near_duplicate", 0),
        "mean_score": told[Stage.CHECKED]["mean_score"],
        "captions_scored": scored,
        "captions_not_scored": (pc.sum(judged["count"]).as_py() or 0) - scored,
    }


def _total(distributions: pa.Table, what: str) -> int:
    return pc.sum(distributions["count"].filter(pc.equal(distributions["what"], what))).as_py() or 0
