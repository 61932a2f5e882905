"""The failure ledger: what failed in the newest run, at whichever stage, and how to have it tried again."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.layout import Stage, Step
from vlmdata.runs import Run, existing_run
from vlmdata.schema import FAILURES

CLASSES = ("transient", "permanent", "refused", "budget")


def failures(
    dataset: Dataset, stages: Collection[Stage] = tuple(Stage), classes: Collection[str] = CLASSES
) -> pa.Table:
    """Every failure of the newest run: rows of `schema.FAILURES`, by stage and sample.

    A captioner's failure is one even where the sample went on with other captions.

    Raises:
        ConfigError: there is no run.
    """
    run = existing_run(dataset)
    parts = [part for stage in stages for part in _of_stage(dataset, run, stage)]
    table = pa.concat_tables([FAILURES.empty_table(), *parts])
    return table.filter(pc.is_in(table["class"], value_set=pa.array(classes))).sort_by(
        [("stage", "ascending"), ("id", "ascending")]
    )


def _of_stage(dataset: Dataset, run: Run, stage: Stage) -> Iterator[pa.Table]:
    for shard in _shards(run, stage):
        if stage is Stage.CAPTIONED:
            yield _captioner(dataset, shard)
        elif stage is not Stage.FINAL:
            yield _others(dataset, shard, stage)


def _shards(run: Run, stage: Stage) -> tuple[Shard, ...]:
    """A stage's shards; stage 03 hands on what was captioned anew for it."""
    later = run.stage(Stage.CHECKED) if stage is Stage.CAPTIONED else None
    report = later or run.stage(stage)
    return report.shards if report else ()


def _captioner(dataset: Dataset, shard: Shard) -> pa.Table:
    rows = dataset.read(shard, Step.CAPTIONED, "attempts")
    rows = rows.filter(pc.is_valid(rows["failure"]))
    return _ledger(
        Stage.CAPTIONED,
        id=rows["id"],
        class_=rows["failure"],
        code=pc.binary_join_element_wise("caption", rows["failure"], "_"),
        http_status=rows["http_status"],
        attempts=rows["requests"],
        message=rows["message"],
        time=rows["time"],
        asked=rows["key"],
    )


def _others(dataset: Dataset, shard: Shard, stage: Stage) -> pa.Table:
    """Files that could not be read, pictures that took too long, embeddings that came to nothing."""
    rows = dataset.read(shard, Step(stage.value), "rejects")
    rows = rows.filter(pc.equal(rows["outcome"], "failed"))
    kind = pc.if_else(rows["retryable"], "transient", "permanent")
    return _ledger(stage, id=rows["id"], class_=kind, code=rows["code"], message=rows["detail"])


def _ledger(stage: Stage, **columns: Any) -> pa.Table:
    columns["class"] = columns.pop("class_")
    rows = len(columns["id"])
    columns["stage"] = pa.repeat(pa.scalar(stage.value), rows)
    arrays = [
        columns[field.name].cast(field.type) if field.name in columns else pa.nulls(rows, field.type)
        for field in FAILURES
    ]
    return pa.table(arrays, schema=FAILURES)


def open_again(dataset: Dataset, classes: Collection[str]) -> int:
    """Another attempt for each picture that the captioner failed on in one of these ways; returns for how many.

    What failed elsewhere, or for want of money, needs none: a build does it again as it is.
    """
    from vlmdata.captioning import line as lines
    from vlmdata.captioning.journal.grants import Limits

    keys = failures(dataset, [Stage.CAPTIONED], [kind for kind in classes if kind != "budget"])["asked"].to_pylist()
    if not keys:
        return 0

    async def open_them() -> int:
        return await (await lines.process().journal(dataset, Limits())).open_attempts(sorted(set(keys)))

    return lines.run(open_them())
