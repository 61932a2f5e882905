"""The gates of all stages over a million kept samples in the store: seconds and memory of a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.builds import ROOT, Row
from vlmdata.checkpoint import Counts, Dataset, Result, Shard, publish, step_key
from vlmdata.config import BuildConfig, DedupConfig
from vlmdata.config_reading import parse_config
from vlmdata.export.names import shard_name
from vlmdata.export.plan import PLAN
from vlmdata.filtering.near_duplicates import Hashes, keep_best
from vlmdata.layout import Stage, Step
from vlmdata.runs import existing_run, report, start_run
from vlmdata.schema import CAPTIONS, CHECKED, FILTERED, JUDGED_CAPTIONS, SAMPLES, filled

COUNT = 1_000_000
SHARD_SIZE = 1_000
BOUND_S, BOUND_GIB = 3, 1
SPLITS = {"train": 0.98, "validation": 0.01, "test": 0.01}
_SHARDS, _EXPORTED = "shards.json", "exported.json"


def run() -> list[Row]:
    """(name, value, bound, remark) of each stage, imports aside."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder))
        return [row for stage in Stage for row in _rows(Path(folder), stage)]


def _rows(folder: Path, stage: Stage) -> list[Row]:
    command = [sys.executable, "-m", "benchmarks.bench_gates", str(folder), stage.value]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    told = json.loads(done.stdout)
    rows = f"{COUNT:,} samples in {COUNT // SHARD_SIZE:,} shards, {told['worked']:.1f} s of processors"
    return [
        (f"gates of {stage}, seconds", told["seconds"], f"<= {BOUND_S}", f"{rows}, imports aside"),
        (f"gates of {stage}, GiB", told["gib"], f"<= {BOUND_GIB}", f"above {told['before_gib']:.2f} GiB of imports"),
    ]


def _write(folder: Path) -> None:
    """Checkpoints of 00 to 03 as a build leaves them, with the columns of one; no pictures."""
    rng = np.random.default_rng(0)
    dataset, hashes = _dataset(folder), _kept_hashes(rng).reshape(-1, SHARD_SIZE)
    shards = [_shard(dataset, number, some, rng) for number, some in enumerate(hashes)]
    start_run(dataset, _config(folder)).stage_done(report(dataset, Stage.CHECKED, shards))
    for file, some in ((_SHARDS, shards), (_EXPORTED, _exported(dataset, shards, rng))):
        told = [{"name": shard.name, "rows": shard.rows, "manifests": dict(shard.manifests)} for shard in some]
        (folder / file).write_text(json.dumps(told), encoding="utf-8")


def _kept_hashes(rng: np.random.Generator) -> Hashes:
    """Unrelated ones, less the few that are within the radius by chance."""
    drawn = rng.integers(0, 2**64, COUNT + COUNT // 100, np.uint64)
    return drawn[keep_best(drawn, np.arange(len(drawn)), DedupConfig().max_distance).kept][:COUNT]


def _shard(dataset: Dataset, number: int, hashes: Hashes, rng: np.random.Generator) -> Shard:
    shard = Shard(f"{number:06d}", SHARD_SIZE)
    facts = _facts(number, hashes, rng)
    scores = rng.uniform(0.29, 0.5, SHARD_SIZE).astype(np.float32)
    words = [f"a photograph, number {number} of {COUNT}" for number in range(SHARD_SIZE)]
    judged = filled(
        JUDGED_CAPTIONS,
        SHARD_SIZE,
        id=facts["id"],
        caption_id=pa.array(rng.bytes(8).hex() for _ in range(SHARD_SIZE)),
        text=pa.array(words),
        origin="source",
        score=pa.array(scores),
        model="starter",
        language="en",
    )
    captions = {"captions": judged}
    samples, unjudged = filled(FILTERED, SHARD_SIZE, **facts), judged.select(CAPTIONS.names).cast(CAPTIONS)
    steps: dict[Step, dict[str, pa.Table]] = {
        Step.RAW: {"samples": samples.select(SAMPLES.names).cast(SAMPLES), "captions": unjudged},
        Step.FILTERED: {"samples": samples},
        Step.CAPTIONED: {"samples": samples, "captions": unjudged},
        Step.CHECKED: {"samples": filled(CHECKED, SHARD_SIZE, **facts, best_score=pa.array(scores)), **captions},
    }
    everyone = Counts(came=SHARD_SIZE, kept=SHARD_SIZE)
    for step, tables in steps.items():
        key = step_key(step, [shard.name], "made by a benchmark")
        shard = shard.at(step, publish(dataset, shard.name, step, key, Result(tables, everyone, everyone)))
    return shard


def _exported(dataset: Dataset, shards: Sequence[Shard], rng: np.random.Generator) -> list[Shard]:
    """Shards of an export in splits that were drawn row by row."""
    samples = pa.concat_tables([dataset.read(shard, Step.CHECKED, "samples") for shard in shards]).combine_chunks()
    paths = pa.array([shard.manifests[Step.CHECKED] for shard in shards])
    drawn, made = rng.choice(len(SPLITS), COUNT, p=list(SPLITS.values())), list[Shard]()
    for split, name in enumerate(SPLITS):
        rows = np.flatnonzero(drawn == split)
        for number, some in enumerate(np.split(rows, range(SHARD_SIZE, len(rows), SHARD_SIZE))):
            here, count = samples.take(some), Counts(came=len(some), kept=len(some))
            plan = filled(PLAN, len(some), id=here["id"], checked=paths.take(some // SHARD_SIZE))
            shard = Shard(shard_name(name, number), len(some))
            for step, tables in (
                (Step.EXPORT_PLAN, {"plan": plan}),
                (Step.FINAL, {"samples": here}),
            ):
                key = step_key(step, [shard.name], "made by a benchmark")
                shard = shard.at(step, publish(dataset, shard.name, step, key, Result(tables, count, count)))
            made.append(shard)
    return made


def _facts(number: int, hashes: Hashes, rng: np.random.Generator) -> dict[str, Any]:
    """Columns of `schema.FILTERED` that differ from row to row."""
    names = [f"{number:06d}/{row:06d}.jpg" for row in range(SHARD_SIZE)]
    return {
        "id": pa.array(rng.bytes(16).hex() for _ in names),
        "key": pa.array(names),
        "sha256": pa.array(rng.bytes(32).hex() for _ in names),
        "bytes": pa.array(rng.integers(10_000, 1_000_000, SHARD_SIZE)),
        "source": pa.array(f"/somewhere/pictures/{name}" for name in names),
        "format": "JPEG",
        "mode": "RGB",
        "width": pa.array(rng.integers(224, 2_000, SHARD_SIZE)),
        "height": pa.array(rng.integers(224, 2_000, SHARD_SIZE)),
        "frames": 1,
        "orientation": 1,
        "phash": pa.array(hashes),
    }


def _dataset(folder: Path) -> Dataset:
    return Dataset(str(folder / "store"), "million")


def _config(folder: Path) -> BuildConfig:
    quality = {"model": "starter", "pretrained": None, "accept_above": 0.28, "reject_below": 0.2}
    # By 14 bits, the default, chance alone would tie a million pictures into one: nobody could split them.
    export = {"splits": SPLITS, "split_by": {"max_distance": DedupConfig().max_distance}}
    source = {"kind": "folder", "path": str(folder)}
    return parse_config({"dataset": "million", "source": source, "quality": quality, "export": export})


def _check_and_tell(folder: Path, stage: Stage) -> None:
    """Judge a stage once, and print seconds and GiB."""
    from expectations.gate import check_stage

    file = folder / (_EXPORTED if stage is Stage.FINAL else _SHARDS)
    shards = [Shard(**told) for told in json.loads(file.read_text(encoding="utf-8"))]
    dataset, config = _dataset(folder), _config(folder)
    run = existing_run(dataset)
    _import_all(config)
    before = _memory("VmRSS")
    start, worked = time.perf_counter(), time.process_time()
    warnings = check_stage(dataset, shards, stage, config, run)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    if warnings:
        raise RuntimeError("; ".join(warnings))
    grown = max(0.0, _memory("VmHWM") - before)
    print(json.dumps({"seconds": seconds, "worked": worked, "gib": grown, "before_gib": before}))


def _import_all(config: BuildConfig) -> None:
    """Libraries, compiled loops and the model's description: a run pays for them once, whatever its size."""
    from expectations import filtered, final
    from expectations.rule import Figure, Rule
    from expectations.sets import repeated
    from expectations.suite import validate
    from vlmdata.quality.judges import judges

    filtered.alike(np.random.default_rng(1).integers(0, 2**64, 3_000, np.uint64), config.dedup.max_distance)
    two = pa.table({"split": ["train", "test"], "phash": pa.array([0, 2**32 - 1], pa.uint64())})
    final.across(two["split"], two["phash"], config.dedup.max_distance)
    repeated(pa.chunked_array([["one"]]))
    judges(config.quality)
    validate("nothing", [Rule("any", "anything", "any", Figure(0), at_most=0)])


def _memory(what: str) -> float:
    """GiB that the kernel tells of this process: ru_maxrss would remember the parent."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{what}:")[1].split()[0]) / 2**20


if __name__ == "__main__":
    _check_and_tell(Path(sys.argv[1]), Stage(sys.argv[2]))
