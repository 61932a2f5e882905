"""`vlmdata report` of a million samples: synthetic checkpoints of a thousand shards, real photographs in them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.bench_drop import status_mb
from benchmarks.builds import ROOT, Row, plain_config
from benchmarks.photos import photos
from vlmdata.checkpoint import Counts, Dataset, Result, Shard, TableRef, publish, step_key
from vlmdata.layout import Stage, Step, data_path
from vlmdata.runs import COMPLETED, existing_run, report, start_run
from vlmdata.schema import (
    ATTEMPTS,
    CAPTION_REJECTS,
    CAPTIONS,
    CHECKED,
    FACTS,
    IMAGES,
    JUDGED_CAPTIONS,
    REJECTS,
    SAMPLES,
    SCORES,
    caption_table,
    filled,
    sample_ids,
)

Tables = dict[str, pa.Table | TableRef]

SHARDS, ROWS = 1_000, 1_000
SECONDS, MEMORY_MB, LARGEST_MB = 60, 2_048, 15
_AT_ONCE = 8
"""Shards that are written at a time: each table waits for the disk."""
_GROUP = 32
"""Pictures in a row group, as sources write them."""
_SMALL, _COPIES, _BROKEN, _MISALIGNED, _HELD = 30, 55, 60, 120, 270
"""Of a shard: the first so many are too small, those up to the next are copies, and so on; the rest is kept."""


def run() -> list[Row]:
    """(name, value, bound, remark): the command in a process of its own, over a folder."""
    with tempfile.TemporaryDirectory(prefix="vlmdata-bench-") as folder:
        _build(Path(folder))
        command = [sys.executable, "-m", "benchmarks.bench_report", folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    of = f"of {SHARDS * ROWS:,} samples"
    return [
        (f"report {of}, seconds", told["seconds"], f"<= {SECONDS}", f"{told['thumbs']:.0f} thumbnails"),
        (f"report {of}, memory MB", told["peak_mb"], f"<= {MEMORY_MB}", "peak of the process"),
        (f"report {of}, page MB", told["page_mb"], f"<= {LARGEST_MB}", f"{told['samples']:.0f} samples on it"),
    ]


def _build(folder: Path) -> None:
    """A run of all shards, as far as 03, with its health on record."""
    from vlmdata.health.measure import measure_health
    from vlmdata.health.saved import save

    (folder / "pictures").mkdir()
    (folder / "captions.jsonl").touch()
    config = plain_config(folder, ROWS)
    dataset = Dataset(config.store, config.dataset)
    made = start_run(dataset, config)
    pictures = photos(64, 256)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        shards = list(pool.map(lambda number: _shard(dataset, number, pictures), range(SHARDS)))
    for stage in (Stage.RAW, Stage.FILTERED, Stage.CAPTIONED, Stage.CHECKED):
        made.stage_done(report(dataset, stage, shards))
    save(made, measure_health(made))
    made.finish(COMPLETED, "", to=Stage.CHECKED.value)


def _shard(dataset: Dataset, number: int, pictures: Sequence[bytes]) -> Shard:
    """A shard with the tables that a report reads, and as many rows in them as a build would leave."""
    whole = _samples(number)
    said = _captions(number, whole)
    lost = {
        Step.FILTERED: [
            _lost(whole, 0, _SMALL, "too_small", value=100.0, bound=224.0),
            # Each is a copy of one that stays.
            _lost(whole, _SMALL, _COPIES, "near_duplicate", value=3.0, bound=8.0, related=whole["id"].slice(ROWS - 25)),
            _lost(whole, _COPIES, _BROKEN, "truncated"),
        ],
        Step.CHECKED: [
            _lost(whole, _BROKEN, _MISALIGNED, "misaligned", value=whole["best_score"].slice(_BROKEN), bound=0.2),
            _lost(
                whole, _MISALIGNED, _HELD, "borderline", "held", value=whole["best_score"].slice(_BROKEN), bound=0.28
            ),
        ],
    }
    facts = {name: whole[name] for name in FACTS.names if name in whole.column_names}
    error = pa.array([_COPIES <= at < _BROKEN for at in range(ROWS)])
    facts["error"] = pc.if_else(error, "truncated", pa.scalar(None, pa.string()))
    scores = {name: said[name] for name in SCORES.names if name in said.column_names}
    images = _images(dataset, whole["id"], pictures, number)
    shard = Shard(f"{number:05d}", ROWS)
    shard = _at(dataset, shard, Step.RAW, {**_kept(whole, said, 0, SAMPLES), "images": images})
    shard = _at(dataset, shard, Step.FACTS, {"facts": filled(FACTS, ROWS, **facts, retryable=False)})
    shard = _at(dataset, shard, Step.FILTERED, _kept(whole, said, _BROKEN), lost[Step.FILTERED], said)
    shard = _at(dataset, shard, Step.CAPTIONED, {**_kept(whole, said, _BROKEN), "attempts": ATTEMPTS.empty_table()})
    shard = _at(dataset, shard, Step.SCORES, {"scores": filled(SCORES, ROWS, **scores).slice(_BROKEN)})
    return _at(dataset, shard, Step.CHECKED, _kept(whole, said, _HELD), lost[Step.CHECKED], said)


def _samples(number: int) -> pa.Table:
    """All columns that samples ever have."""
    rng, at = np.random.default_rng(number), np.arange(ROWS)
    keys = [f"part-{number % 40:02d}/{number:04d}-{place:04d}.jpg" for place in at]
    side = pa.array(np.where(at < _SMALL, 100, 500).astype(np.int32))
    return filled(
        CHECKED,
        ROWS,
        id=pa.array(sample_ids([f"{number:08x}{place:056x}" for place in at], keys)),
        key=pa.array(keys),
        source=pa.array(keys),
        sha256="0" * 64,
        bytes=60_000,
        license="CC-BY-4.0",
        format="JPEG",
        mode="RGB",
        width=side,
        height=side,
        frames=1,
        orientation=1,
        phash=pa.array(rng.integers(0, 2**63, ROWS).astype(np.uint64)),
        best_score=pa.array(rng.normal(0.27, 0.04, ROWS).astype(np.float32)),
    )


def _captions(number: int, whole: pa.Table) -> pa.Table:
    """One for each sample, with its score."""
    words = np.array(_WORDS)[np.random.default_rng(number).integers(0, len(_WORDS), (ROWS, 3))]
    texts = [f"a photograph of {a} and {b} beside {c}, number {at}" for at, (a, b, c) in enumerate(words.tolist())]
    languages: list[str | None] = ["en" if at % 5 else "de" for at in range(ROWS)]
    rows = caption_table(whole["id"].to_pylist(), texts, languages, ["source"] * ROWS)
    own = {name: rows[name] for name in rows.column_names}
    judged = {"model": "ViT-B-32@openai", "language": rows["lang"], "tokens": 14, "truncated": False}
    return filled(JUDGED_CAPTIONS, ROWS, **own, **judged, score=whole["best_score"])


def _kept(whole: pa.Table, said: pa.Table, start: int, schema: pa.Schema = CHECKED) -> Tables:
    return {"samples": whole.select(schema.names).slice(start), "captions": said.slice(start)}


def _lost(whole: pa.Table, start: int, end: int, code: str, outcome: str = "rejected", **why: Any) -> pa.Table:
    rows = whole.slice(start, end - start)
    why = {name: one.slice(0, end - start) if isinstance(one, pa.ChunkedArray) else one for name, one in why.items()}
    return filled(
        REJECTS, rows.num_rows, id=rows["id"], key=rows["key"], outcome=outcome, code=code, retryable=False, **why
    )


def _at(
    dataset: Dataset, shard: Shard, step: Step, tables: Tables, lost: Sequence[pa.Table] = (), said: Any = None
) -> Shard:
    """The shard with one more checkpoint; captions share the fate of the samples that it lost."""
    rejects = pa.concat_tables([REJECTS.empty_table(), *lost])
    gone = CAPTION_REJECTS.empty_table()
    if said is not None:
        own = said.filter(pc.is_in(said["id"], value_set=rejects["id"])).select(CAPTIONS.names)
        fate = rejects.take(pc.index_in(own["id"], value_set=rejects["id"]))
        why = {name: fate[name] for name in ("outcome", "code", "value", "bound")}
        gone = filled(CAPTION_REJECTS, own.num_rows, **{name: own[name] for name in CAPTIONS.names}, **why)
    kept = ROWS - rejects.num_rows
    counts = Counts.of(kept, rejects["outcome"], came=ROWS)
    result = Result({**tables, "rejects": rejects, "caption_rejects": gone}, samples=counts, captions=counts)
    return shard.at(step, publish(dataset, shard.name, step, step_key(step, [shard.name], {}), result))


def _images(dataset: Dataset, ids: pa.ChunkedArray, pictures: Sequence[bytes], number: int) -> TableRef:
    """Originals in row groups; one photograph a group, so that the disk holds few and the reader unpacks all."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, IMAGES, compression={"id": "NONE", "image": "ZSTD"}, use_dictionary=False) as file:
        for start in range(0, ROWS, _GROUP):
            some = ids.slice(start, _GROUP)
            one = pictures[(number + start) % len(pictures)]
            image = pa.array([one] * len(some), pa.large_binary())
            file.write_table(pa.table([some, image], schema=IMAGES))
    path = data_path(dataset.name, Step.RAW, f"{number:032x}")
    dataset.store.put(path, sink.getvalue())
    return TableRef(path=path, rows=ROWS, bytes=sink.tell(), columns={})


_WORDS = (
    *("a red bridge", "two old windmills", "a sleeping cat", "the harbour at night", "a bowl of oranges"),
    *("a wooden boat", "children on a beach", "a steam train", "three snowy peaks", "an empty street"),
)


def make(folder: str) -> dict[str, float]:
    """One report: seconds with imports, and the most memory that the process ever had."""
    start = time.perf_counter()
    from vlmdata.report.make import make_report

    dataset = Dataset(f"{folder}/store", "photos")
    page = make_report(existing_run(dataset))
    seconds = time.perf_counter() - start
    thumbs = page.count(b"data:image/webp")
    samples = page.count(b'"came_from"')
    return {
        "seconds": seconds,
        "peak_mb": status_mb("VmHWM"),
        "page_mb": len(page) / 1e6,
        "thumbs": thumbs,
        "samples": samples,
    }


if __name__ == "__main__":
    print(json.dumps(make(sys.argv[1])))
