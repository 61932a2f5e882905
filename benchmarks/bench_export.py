"""The export, where pictures pass through: against `cp` of the files that it writes, and `sha256sum` over them, twice.

The export reads the pictures from their checkpoints, takes out of them what
they say of people, writes on all cores, and reads back; the other side copies
its files, waits for the disk as the export does, and hashes them twice. The
sides take turns, and the median of the rounds' ratios counts. Against the
same with a hash on each core there is no bound.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.builds import Row, plain_config, write_source
from benchmarks.photos import photo_files
from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Counts, Dataset, Result, Shard, publish, step_key
from vlmdata.config import BuildConfig, ExportConfig
from vlmdata.export.finish import finish_export
from vlmdata.export.plan import plan_export
from vlmdata.export.shards import export_shard
from vlmdata.export.verify import verify
from vlmdata.filtering.duplicates import find_duplicates
from vlmdata.filtering.pool import Terms
from vlmdata.filtering.shards import filter_shard
from vlmdata.here import each_here
from vlmdata.ingest.listing import list_source
from vlmdata.ingest.shards import ingest_shard
from vlmdata.layout import Step
from vlmdata.measure.facts import measure_shard
from vlmdata.quality.bands import judge_shard
from vlmdata.schema import SCORES, filled

PHOTOS = 2_000
SIDE = 500
SHARDS = 4
ROUNDS = 7
FORMATS = {"webdataset": ("webdataset",), "webdataset and parquet": ("webdataset", "parquet")}


def run() -> list[Row]:
    """(name, ratio, bound, remark) of one format and of the two that are written unless others are asked for."""
    files = photo_files(PHOTOS, SIDE)
    with tempfile.TemporaryDirectory() as folder:
        write_source(Path(folder), files)
        config = plain_config(Path(folder), PHOTOS // SHARDS)
        dataset = Dataset(config.store, config.dataset)
        shards = _checked(dataset, config)
        return [_compare(dataset, shards, name, formats, Path(folder, "copy")) for name, formats in FORMATS.items()]


def _compare(dataset: Dataset, shards: list[Shard], name: str, formats: tuple[str, ...], copy: Path) -> Row:
    config = ExportConfig.model_validate({"formats": formats})
    taken, theirs, on_all = [], [], []
    for _ in range(ROUNDS):
        shutil.rmtree(Path(dataset.store_url, dataset.name, Step.FINAL), ignore_errors=True)
        os.sync()
        start = time.perf_counter()
        place = _export(dataset, shards, config)
        taken.append(time.perf_counter() - start)
        theirs.append(_copy_and_hash_twice(place, copy, 1))
        on_all.append(_copy_and_hash_twice(place, copy, os.cpu_count() or 1))
    proof = verify(str(place))
    if not proof.holds:
        raise RuntimeError(f"the export does not hold: {proof.wrong[:3]}")
    speed, bare = (proof.bytes / 1e6 / statistics.median(times) for times in (taken, theirs))
    said = (
        f"{speed:.0f} MB/s against {bare:.0f}; {proof.samples} pictures of {SIDE} px, {proof.bytes / 1e6:.0f} MB; "
        f"{_ratio(on_all, taken):.2f} of a hash on each core; {ROUNDS} rounds"
    )
    return f"export {name} / cp and two hashes", _ratio(theirs, taken), ">= 0.6", said


def _ratio(theirs: list[float], own: list[float]) -> float:
    return statistics.median(bare / taken for bare, taken in zip(theirs, own, strict=True))


def _export(dataset: Dataset, shards: list[Shard], config: ExportConfig) -> Path:
    planned = plan_export(dataset, shards, config)
    made = each_here(Step.FINAL, planned, lambda shard: export_shard(dataset, shard, config))
    return Path(dataset.store.locate(finish_export(dataset, made, config, {})))


def _copy_and_hash_twice(place: Path, copy: Path, at_once: int) -> float:
    """Seconds that it takes."""
    shutil.rmtree(copy, ignore_errors=True)
    os.sync()
    start = time.perf_counter()
    subprocess.run(["cp", "-r", str(place), str(copy)], check=True)
    written = [str(path) for path in copy.rglob("*") if path.is_file()]
    subprocess.run(["sync", *written], check=True)
    for _ in range(2):
        hashing = ["xargs", "-0", "-n", "1", "-P", str(at_once), "sha256sum"]
        subprocess.run(hashing, input="\0".join(written), text=True, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _checked(dataset: Dataset, config: BuildConfig) -> list[Shard]:
    """The shards as stage 03 leaves them if every caption is a good one."""
    shards = [ingest_shard(dataset, shard, config) for shard in list_source(dataset, config)]
    shards = [measure_shard(dataset, shard, config.filter) for shard in shards]
    shards = find_duplicates(dataset, shards, Terms(config.filter, config.dedup))
    shards = [filter_shard(dataset, shard, config.filter, config.dedup) for shard in shards]
    captioned = [caption_shard(dataset, shard, config.caption) for shard in shards]
    return [judge_shard(dataset, _scored(dataset, shard), config.quality) for shard in captioned]


def _scored(dataset: Dataset, shard: Shard) -> Shard:
    captions = dataset.read(shard, Step.CAPTIONED, "captions")
    known = {
        "id": captions["id"],
        "caption_id": captions["caption_id"],
        "score": pa.array(np.full(len(captions), 0.5, np.float32)),
    }
    table = filled(SCORES, captions.num_rows, **known, model="given", language="en")
    counts = Counts(came=captions.num_rows, kept=captions.num_rows)
    key = step_key(Step.SCORES, captions["caption_id"].to_pylist(), {})
    return shard.at(
        Step.SCORES, publish(dataset, shard.name, Step.SCORES, key, Result({"scores": table}, captions=counts))
    )
