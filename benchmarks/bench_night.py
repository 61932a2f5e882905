"""Near-duplicates of a night: ten new shards on top of five thousand published ones, against deciding all anew."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from benchmarks.bench_collisions import random_hashes
from benchmarks.bench_drop import status_mb
from benchmarks.bench_near_duplicates import Hashes
from benchmarks.builds import ROOT, Row
from vlmdata.checkpoint import Dataset, Result, Shard, publish, step_key
from vlmdata.config import DedupConfig, FilterConfig
from vlmdata.filtering.duplicates import find_duplicates
from vlmdata.filtering.hash_index import INDEX, HashIndex
from vlmdata.filtering.pool import Standing, Terms
from vlmdata.layout import Step
from vlmdata.schema import CAPTIONS, FACTS, filled

SHARDS, NEW, ROWS = 5_000, 10, 1_000
BITS_TURNED = np.uint64(3)
MEMORY_BOUND_MB = 1_500


def run() -> list[Row]:
    """(name, value, bound, remark): the whole step as a build does it, from a folder, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="vlmdata-bench-") as folder:
        _publish(folder)
        anew, night = (_in_a_process(folder, how) for how in ("anew", "night"))
    published = SHARDS * ROWS
    told = f"{night['seconds']:.1f} s on top of {published:,} published, {anew['seconds']:.0f} s for all of them anew"
    grown = f"{night['grown_mb']:.0f} MB, libraries among them; anew {anew['grown_mb']:.0f} MB"
    share = night["grown_mb"] / MEMORY_BOUND_MB
    return [
        ("a night's near-duplicates, anew / on top", anew["seconds"] / night["seconds"], ">= 4", told),
        (f"a night's near-duplicates, memory / {MEMORY_BOUND_MB} MB", share, "<= 1", grown),
        ("a night's near-duplicates, found / planted", night["dropped"] / (NEW * ROWS / 2), ">= 1", "more by chance"),
    ]


def _publish(folder: str) -> None:
    """Facts of all shards, and the version that a build of the first ones would publish."""
    dataset, hashes = Dataset(folder, "set"), random_hashes(SHARDS * ROWS, seed=2)
    shards = [_measured(dataset, at, hashes[at * ROWS : (at + 1) * ROWS]) for at in range(SHARDS)]
    decided = find_duplicates(dataset, shards, Terms(FilterConfig(), DedupConfig()))
    manifest = dataset.manifest(decided[0], Step.DUPLICATES)
    rows = dataset.table(manifest.tables["decided"])
    kept = pa.array(~np.asarray(rows["duplicate_of"].is_valid()))
    rows = pa.table([kept if name == "published" else rows[name] for name in INDEX.names], schema=INDEX)
    names = [shard.name for shard in shards]
    index = HashIndex().updated(dataset, rows, names, names)
    drop = random_hashes(NEW * ROWS, seed=3)
    drop[: len(drop) // 2] = np.random.default_rng(4).choice(hashes, len(drop) // 2) ^ BITS_TURNED
    new = [_measured(dataset, SHARDS + at, drop[at * ROWS : (at + 1) * ROWS]) for at in range(NEW)]
    told = {
        "index": index.model_dump(),
        "decided": decided[0].manifests[Step.DUPLICATES.value],
        "reads": manifest.facts["reads"],
        "shards": [[shard.name, shard.rows, dict(shard.manifests)] for shard in [*shards, *new]],
    }
    dataset.store.create("told.json", json.dumps(told).encode())


def _measured(dataset: Dataset, number: int, hashes: Hashes) -> Shard:
    """A shard as it comes out of measuring, without pictures."""
    name, first = f"{number:05d}", number * ROWS
    ids = pa.array([f"{first + at:032x}" for at in range(len(hashes))], pa.string())
    facts = filled(FACTS, len(ids), id=ids, retryable=False, width=640, height=480, phash=pa.array(hashes))
    shard = Shard(name, len(ids))
    for step, tables in ((Step.RAW, {"captions": CAPTIONS.empty_table()}), (Step.FACTS, {"facts": facts})):
        shard = shard.at(step, publish(dataset, name, step, step_key(step, [name], {}), Result(dict(tables))))
    return shard


def _in_a_process(folder: str, how: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.bench_night", folder, how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def decide(folder: str, how: str) -> dict[str, float]:
    """Seconds, memory and what was dropped of one decision over all shards."""
    dataset = Dataset(folder, "set")
    told = json.loads(dataset.store.get("told.json"))
    shards = [Shard(name, rows, manifests) for name, rows, manifests in told["shards"]]
    standing = Standing(HashIndex.model_validate(told["index"]), told["decided"], told["reads"])
    before, start = status_mb("VmRSS"), time.perf_counter()
    on_top = standing if how == "night" else None
    found = find_duplicates(dataset, shards, Terms(FilterConfig(), DedupConfig()), standing=on_top)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "grown_mb": status_mb("VmHWM") - before, "dropped": _dropped(dataset, found)}


def _dropped(dataset: Dataset, shards: Sequence[Shard]) -> float:
    """Of the new shards."""
    tables = dataset.manifest(shards[0], Step.DUPLICATES).tables
    return float(
        sum(tables[f"dropped/{shard.name}"].rows for shard in shards[-NEW:] if f"dropped/{shard.name}" in tables)
    )


if __name__ == "__main__":
    print(json.dumps(decide(*sys.argv[1:3])))
