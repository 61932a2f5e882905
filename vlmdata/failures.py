"""The failure ledger: what failed in the newest run, at whichever stage, and how to have it tried again."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.layout import Stage, Step
from vlmdata.runs import STOPPED, Run, existing_run
from vlmdata.schema import ATTEMPTS, FAILURES

if TYPE_CHECKING:
    from vlmdata.captioning.journal.book import Entry

CLASSES = ("transient", "permanent", "refused", "budget")


def failures(
    dataset: Dataset, stages: Collection[Stage] = tuple(Stage), classes: Collection[str] = CLASSES
) -> pa.Table:
    """Every failure of the newest run: rows of `schema.FAILURES`, by stage and sample.

    A captioner's failure is one even where the sample went on with other captions.
    Of a stage that the newest run was stopped or killed before, the failures
    are those of the run before it.

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
        else:
            yield _others(dataset, shard, stage)


def _shards(run: Run, stage: Stage) -> tuple[Shard, ...]:
    """A stage's shards; stage 03 hands on what was captioned anew for it."""
    report = run.stage(stage)
    if report is None:
        before = _before(run)
        return _shards(before, stage) if before else ()
    later = run.stage(Stage.CHECKED) if stage is Stage.CAPTIONED else None
    return (later or report).shards


def _before(run: Run) -> Run | None:
    """The run before one that did not come to its own end."""
    end = run.read("end")
    cut_short = end is None or end["outcome"] == STOPPED
    return Run(run.dataset, run.number - 1) if cut_short and run.number > 1 else None


def last_stage(dataset: Dataset) -> Stage:
    """How far the newest run went that came to its own end: a retry goes as far."""
    run: Run | None = existing_run(dataset)
    while run and (before := _before(run)):
        run = before
    end = run.read("end") if run else None
    return Stage(end["to"]) if end and "to" in end else Stage.FINAL


def _failed_attempts(dataset: Dataset, shard: Shard) -> pa.Table:
    rows = dataset.read(shard, Step.CAPTIONED, "attempts")
    return rows.filter(pc.is_valid(rows["failure"]))


def _captioner(dataset: Dataset, shard: Shard) -> pa.Table:
    rows = _failed_attempts(dataset, shard)
    languages = _languages(dataset, shard, rows) if rows.num_rows else {}
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
        language=pa.chunked_array([[languages.get(key) for key in rows["key"].to_pylist()]], pa.string()),
    )


def _languages(dataset: Dataset, shard: Shard, asked: pa.Table) -> dict[str, str]:
    """The language of each question, by the journal's name of it; none where a checkpoint is older than its record."""
    from vlmdata.captioning.questions import keys_of

    samples = dataset.read(shard, Step.FILTERED, "samples", ["id", "sha256"])
    contents = samples["sha256"].filter(pc.is_in(samples["id"], value_set=asked["id"])).to_pylist()
    questions = dataset.manifest(shard, Step.CAPTIONED).facts.get("questions", [])
    return {key: question["language"] for question in questions for key in keys_of(question, contents)}


def _others(dataset: Dataset, shard: Shard, stage: Stage) -> pa.Table:
    """Files and addresses that could not be read, pictures that took too long, embeddings that came to nothing.

    But for downloads each was tried once. Tables hold no clock, so that the
    same input makes the same bytes: the time is the store's, of the checkpoint.
    """
    rows = dataset.read(shard, Step(stage.value), "rejects")
    rows = rows.filter(pc.equal(rows["outcome"], "failed"))
    kind = pc.if_else(rows["retryable"], "transient", "permanent")
    tried = _fetched(dataset, shard, rows["id"]) if stage is Stage.RAW else {}
    tried = tried or _tried_once(dataset, shard, stage, rows.num_rows)
    return _ledger(stage, id=rows["id"], class_=kind, code=rows["code"], message=rows["detail"], **tried)


def _tried_once(dataset: Dataset, shard: Shard, stage: Stage, failed: int) -> dict[str, pa.Array]:
    if not failed:
        return {}
    moment = round(dataset.store.written(shard.manifests[stage.value]) * 1000)
    return {"attempts": pa.repeat(1, failed), "time": pa.repeat(moment, failed)}


def _fetched(dataset: Dataset, shard: Shard, ids: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    """How addresses answered that brought no picture."""
    table = dataset.manifest(shard, Step.RAW).tables.get("fetches")
    if table is None:
        return {}
    rows = dataset.table(table, ["id", "http_status", "attempts", "time"])
    rows = rows.take(pc.index_in(ids, value_set=rows["id"]))
    return {name: rows[name] for name in ("http_status", "attempts", "time")}


def _ledger(stage: Stage, **columns: Any) -> pa.Table:
    columns["class"] = columns.pop("class_")
    rows = len(columns["id"])
    columns["stage"] = pa.repeat(pa.scalar(stage.value), rows)
    arrays = [
        columns[field.name].cast(field.type) if field.name in columns else pa.nulls(rows, field.type)
        for field in FAILURES
    ]
    return pa.table(arrays, schema=FAILURES)


def may_be_mended(rows: pa.Table) -> pa.Table:
    """The failures of a ledger that another try may mend: the captioner's, and those that time alone may mend."""
    asked, passing = pc.equal(rows["stage"], Stage.CAPTIONED.value), pc.equal(rows["class"], "transient")
    return rows.filter(pc.or_(asked, passing))


def open_again(dataset: Dataset, classes: Collection[str]) -> int:
    """Another attempt for each picture that the captioner failed on in one of these ways; returns for how many.

    One that was opened since the failure was recorded, by a `retry` that was
    killed, is gone on with. What failed for want of money needs none: a build
    asks for it as it is.
    """
    from vlmdata.captioning import line as lines
    from vlmdata.event_loop import run

    recorded = _recorded(dataset, [kind for kind in classes if kind != "budget"])
    if not recorded:
        return 0

    async def open_them() -> int:
        journal = await lines.process().journal(dataset)
        entries = await journal.find(recorded)
        now = time.time()
        return await journal.open_attempts(
            key for key, entry in sorted(entries.items()) if entry.attempt <= recorded[key] and not _asking(entry, now)
        )

    return run(open_them())


def _recorded(dataset: Dataset, classes: Collection[str]) -> dict[str, int]:
    """The journal's names of what failed, and which attempt that was."""
    shards = _shards(existing_run(dataset), Stage.CAPTIONED)
    rows = pa.concat_tables([ATTEMPTS.empty_table(), *(_failed_attempts(dataset, shard) for shard in shards)])
    rows = rows.filter(pc.is_in(rows["failure"], value_set=pa.array(classes, pa.string())))
    return dict(zip(rows["key"].to_pylist(), rows["attempt"].to_pylist(), strict=True))


def _asking(entry: Entry, now: float) -> bool:
    """Somebody asks at this moment: another attempt would throw the answer away."""
    from vlmdata.captioning.journal.writer import is_gone

    return any(claim.until > now and not is_gone(claim.writer) for claim in entry.open.values())
