"""One export shard: its pictures finished, a file of each format written and read back."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata import layout
from vlmdata.checkpoint import Counts, Dataset, Result, Shard, run_once
from vlmdata.config import CaptionMix, ExportConfig
from vlmdata.errors import BrokenInvariant
from vlmdata.export.deliver import PLACES, deliver
from vlmdata.export.left_out import accounted, is_left_out
from vlmdata.export.mix import is_set, mixed
from vlmdata.export.pixels import CannotFinish, Picture, finished
from vlmdata.export.rows import CAPTION_COLUMNS, SAMPLE_COLUMNS, with_captions
from vlmdata.export.tallies import TALLIES, tally
from vlmdata.layout import Step
from vlmdata.progress import advance
from vlmdata.schema import CAPTION_REJECTS, CAPTIONS, REJECTS, filled

_BATCH = 64
"""Pictures read at a time, and read ahead of those that are finished."""

EXPORTED = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), metadata={"note": "of the exported picture's bytes"}),
        pa.field("extension", pa.string(), metadata={"note": "jpg | png | webp"}),
        pa.field("width", pa.int32(), metadata={"note": "px"}),
        pa.field("height", pa.int32(), metadata={"note": "px"}),
        pa.field("reencoded", pa.bool_(), metadata={"note": "false: the source's own compressed stream"}),
        pa.field("changes", pa.list_(pa.string()), metadata={"note": "why it is not: `pixels.Change`"}),
        pa.field("captions", pa.int32(), metadata={"note": "how many"}),
        pa.field("best_score", pa.float32(), metadata={"note": "best CLIPScore of its captions"}),
    ]
)
"""Table `samples`: what left the house."""


def export_shard(dataset: Dataset, shard: Shard, config: ExportConfig) -> Shard:
    """Write one export shard in every format, each read back, counted and checked.

    Tables: `samples` (`EXPORTED`), `places` (`deliver.PLACES`), `tallies`
    (`tallies.TALLIES`), `rejects` (code `export_failed`), `caption_rejects`
    (`mix` and `length` of `mix.mixed`, `sample_failed`).
    Facts: `export`, the export's key; `shards`, of how many this is one; `score_sum` and
    `score_count` of best scores; `files`, each with its path below the export's folder, size and sha256, and the number
    and size of files `beside` it.

    Raises:
        StoreError: the store does not give back what was written.
    """
    plan = dataset.manifest(shard, Step.EXPORT_PLAN)
    return run_once(dataset, shard, Step.FINAL, [plan.key], {}, lambda _: write_files(dataset, shard, config))


_NOTHING = {"samples": EXPORTED.empty_table(), "places": PLACES.empty_table(), "tallies": TALLIES.empty_table()}


def write_files(dataset: Dataset, shard: Shard, config: ExportConfig) -> Result:
    """What `export_shard` does, whether or not it was done before."""
    plan = dataset.read(shard, Step.EXPORT_PLAN, "plan")
    if is_left_out(planned := dataset.manifest(shard, Step.EXPORT_PLAN)):
        return accounted(dataset, planned, _NOTHING)
    named = planned.facts
    every, captions, left_out = _described(dataset, plan, config.captions)
    outcomes = _finish(dataset, plan, config)
    done = pa.array([isinstance(outcome, Picture) for outcome in outcomes], pa.bool_())
    pictures = [outcome for outcome in outcomes if isinstance(outcome, Picture)]
    reasons = [outcome for outcome in outcomes if isinstance(outcome, str)]
    rows, lost = every.filter(done), every.filter(pc.invert(done))
    left_out = _of(rows, left_out)
    caption_rejects = pa.concat_tables([left_out, _failed_captions(_of(lost, captions))])

    formats = sorted(set(config.formats)) if pictures else []
    prefix = layout.export_prefix(dataset.name, named["export"])
    delivered = [deliver(dataset.store, prefix, name, shard.name, rows, pictures) for name in formats]
    return Result(
        {
            "samples": _exported(rows, pictures),
            "places": pa.concat_tables([PLACES.empty_table(), *[places for _, places in delivered]]),
            "tallies": tally(rows, pictures, left_out if is_set(config.captions) else None),
            "rejects": _rejects(lost, reasons),
            "caption_rejects": caption_rejects,
        },
        samples=Counts(came=every.num_rows, kept=len(pictures), failed=len(reasons)),
        captions=Counts.of(_captions_in(rows), caption_rejects["outcome"], came=captions.num_rows),
        facts={**named, "files": [file for file, _ in delivered], **_scored(rows)},
    )


def _described(dataset: Dataset, plan: pa.Table, mix: CaptionMix) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Rows of `rows.ROWS` in the plan's order, all their captions, and those that the mix leaves out."""
    samples, captions = [], []
    for path in pc.unique(plan["checked"]).to_pylist():
        tables = dataset.manifest_at(path).tables
        samples.append(_of(plan, dataset.table(tables["samples"], SAMPLE_COLUMNS)))
        captions.append(_of(plan, dataset.table(tables["captions"], CAPTION_COLUMNS)))
    found, spoken = pa.concat_tables(samples), pa.concat_tables(captions)
    order = pc.index_in(plan["id"], value_set=found["id"])
    if order.null_count:
        raise BrokenInvariant(f"export: {order.null_count} planned samples are not in their shards")
    chosen, left_out = mixed(spoken, mix)
    return with_captions(found.take(order), chosen), spoken, left_out


def _of(plan: pa.Table, table: pa.Table) -> pa.Table:
    return table.filter(pc.is_in(table["id"], value_set=plan["id"]))


@lru_cache(maxsize=1)
def _finishers(pid: int) -> ThreadPoolExecutor:
    """This process's own, whatever the number of its shards: a thread for each processor."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="finish")


def _finish(dataset: Dataset, plan: pa.Table, config: ExportConfig) -> list[Picture | str]:
    """Each planned picture, or why there is none, in the plan's order."""
    place = {sample: index for index, sample in enumerate(plan["id"].to_pylist())}
    outcomes: list[Picture | str | None] = [None] * len(place)
    waiting: deque[tuple[str, Future[Picture | str]]] = deque()

    def take(count: int) -> None:
        for _ in range(count):
            sample, outcome = waiting.popleft()
            outcomes[place[sample]] = outcome.result()
        advance(Step.FINAL, count)

    pool = _finishers(os.getpid())
    try:
        for batch in _originals(dataset, plan):
            waiting.extend((sample, pool.submit(_attempt, image, config)) for sample, image in batch)
            # While these are finished, the next are read: no thread waits for the slowest of a batch.
            take(max(0, len(waiting) - _BATCH))
        take(len(waiting))
    finally:
        for _, outcome in waiting:  # of a shard that failed: its pictures keep no other shard's from a thread
            outcome.cancel()
    known = [outcome for outcome in outcomes if outcome is not None]
    if len(known) != len(outcomes):
        raise BrokenInvariant(f"export: {len(outcomes) - len(known)} planned pictures are not there")
    return known


def _originals(dataset: Dataset, plan: pa.Table) -> Iterator[list[tuple[str, bytes]]]:
    """Batches of (id, original bytes); one input shard's pictures in memory at a time."""
    for path in pc.unique(plan["raw"]).to_pylist():
        data = dataset.store.view(dataset.manifest_at(path).tables["images"].path)
        for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(_BATCH, columns=["id", "image"]):
            planned = pc.is_in(batch["id"], value_set=plan["id"].combine_chunks())
            wanted = batch if pc.all(planned).as_py() else batch.filter(planned)
            yield list(zip(wanted["id"].to_pylist(), wanted["image"].to_pylist(), strict=True))


def _attempt(image: bytes, config: ExportConfig) -> Picture | str:
    try:
        picture = finished(image, config.jpeg_quality, config.pixels)
    except CannotFinish as reason:
        return str(reason)
    _ = picture.sha256  # here, where other threads can run beside it
    return picture


def _exported(rows: pa.Table, pictures: Sequence[Picture]) -> pa.Table:
    return filled(
        EXPORTED,
        rows.num_rows,
        id=rows["id"],
        key=rows["key"],
        sha256=pa.array([picture.sha256 for picture in pictures], pa.string()),
        extension=pa.array([picture.extension for picture in pictures], pa.string()),
        width=pa.array([picture.width for picture in pictures], pa.int32()),
        height=pa.array([picture.height for picture in pictures], pa.int32()),
        reencoded=pa.array([picture.reencoded for picture in pictures], pa.bool_()),
        changes=pa.array([picture.changes for picture in pictures], pa.list_(pa.string())),
        captions=pc.list_value_length(rows["captions"]),
        best_score=rows["best_score"],
    )


def _scored(rows: pa.Table) -> dict[str, float]:
    """Sum and number of the samples' best CLIPScores, for the funnel's mean."""
    best = pc.cast(rows["best_score"], pa.float64())
    return {"score_sum": float(pc.sum(best).as_py() or 0.0), "score_count": len(best) - best.null_count}


def _rejects(rows: pa.Table, reasons: list[str]) -> pa.Table:
    return filled(
        REJECTS,
        rows.num_rows,
        id=rows["id"],
        key=rows["key"],
        outcome="failed",
        code="export_failed",
        detail=pa.array(reasons, pa.string()),
        retryable=False,
    )


def _failed_captions(captions: pa.Table) -> pa.Table:
    own = {name: captions[name] for name in CAPTIONS.names}
    return filled(CAPTION_REJECTS, captions.num_rows, **own, outcome="failed", code="sample_failed")


def _captions_in(rows: pa.Table) -> int:
    return pc.sum(pc.list_value_length(rows["captions"])).as_py() or 0
