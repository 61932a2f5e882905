"""The export stage with `export.pixels` resizing, against a bare Pillow loop over the same files, both on all cores.

The loop opens, resizes by the same filter and saves at the same quality, in
threads and in processes that run already; the faster of the two counts. The
stage runs as in a build, as many shards at a time as there are cores, and does
the rest of its work as well: it reads the pictures from the store, writes a
tar, reads that back. The sides take turns, and the median of the rounds' ratios
counts.
"""

from __future__ import annotations

import io
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from benchmarks.builds import Row, plain_config, write_source
from benchmarks.photos import photo_files
from vlmdata.checkpoint import Counts, Dataset, Result, Shard, publish, step_key
from vlmdata.config import ExportConfig, PixelsConfig
from vlmdata.export.pixels import finished
from vlmdata.export.plan import plan_export
from vlmdata.export.shards import export_shard
from vlmdata.ingest.listing import list_source
from vlmdata.ingest.shards import ingest_shard
from vlmdata.layout import Stage, Step
from vlmdata.schema import CHECKED, JUDGED_CAPTIONS, SAMPLES, filled

SHARDS = 2
ROUNDS = 9
CASES = ((200, 500, 256), (1_000, 500, 256), (48, 1600, 512))
"""How many photographs, their longer side, and what that becomes, px. What a shard costs whatever it holds, such as to
sync its tables, counts most in the first."""


def run() -> list[Row]:
    """(name, ratio, bound, remark) of the whole stage, and of its work on pixels alone, for each case."""
    return [row for case in CASES for row in _compared(*case)]


def _compared(count: int, longer: int, side: int) -> list[Row]:
    cores = os.cpu_count() or 1
    files = photo_files(count, longer)
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(cores) as processes:
        dataset, shards = _checked(Path(folder), files)
        config = ExportConfig(
            formats=("webdataset",),
            samples_per_shard=len(files) // SHARDS,
            pixels=PixelsConfig(mode="resize", side=side),
        )
        with ThreadPoolExecutor(cores) as threads:
            works: dict[str, Callable[[], None]] = {
                "processes": partial(_bare, processes, files, side),
                "threads": partial(_bare, threads, files, side),
                "pixels": partial(_pixels, threads, files, config),
                "stage": partial(_stage, dataset, shards, config),
            }
            seconds = _alternate(works, partial(_forget_export, dataset))
    bare = [min(pair) for pair in zip(seconds["processes"], seconds["threads"], strict=True)]
    rate = {name: len(files) / statistics.median(taken) for name, taken in seconds.items()}
    told = (
        f"{rate['stage']:.0f} images/s; bare {rate['processes']:.0f}/s in processes, {rate['threads']:.0f}/s in threads"
    )
    what = f"resize {longer} to {side} px, {count // SHARDS} a shard"
    return [
        (f"{what}, export stage / bare Pillow", _ratio(bare, seconds["stage"]), ">= 0.8", told),
        (f"{what}, pixels alone / bare Pillow", _ratio(bare, seconds["pixels"]), "", f"{rate['pixels']:.0f} images/s"),
    ]


def _ratio(bare: list[float], own: list[float]) -> float:
    return statistics.median(theirs / ours for theirs, ours in zip(bare, own, strict=True))


def _checked(folder: Path, files: list[Path]) -> tuple[Dataset, list[Shard]]:
    """The pictures as the stages before leave them, without captions."""
    write_source(folder, files)
    config = plain_config(folder, len(files) // SHARDS)
    dataset = Dataset(config.store, config.dataset)
    return dataset, [_passed(dataset, ingest_shard(dataset, one, config)) for one in list_source(dataset, config)]


def _passed(dataset: Dataset, shard: Shard) -> Shard:
    """The shard with all its samples checked: what they score is of no interest here."""
    raw = dataset.read(shard, Step.RAW, "samples")
    samples = filled(CHECKED, raw.num_rows, **{name: raw[name] for name in SAMPLES.names})
    result = Result(
        {"samples": samples, "captions": JUDGED_CAPTIONS.empty_table()},
        samples=Counts(came=raw.num_rows, kept=raw.num_rows),
    )
    key = step_key(Step.CHECKED, [shard.name], {})
    return shard.at(Step.CHECKED, publish(dataset, shard.name, Step.CHECKED, key, result))


def _stage(dataset: Dataset, shards: list[Shard], config: ExportConfig) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as engine:
        list(engine.map(lambda shard: export_shard(dataset, shard, config), plan_export(dataset, shards, config)))


def _forget_export(dataset: Dataset) -> None:
    shutil.rmtree(Path(dataset.store_url, dataset.name, Stage.FINAL), ignore_errors=True)


def _pixels(threads: Executor, files: list[Path], config: ExportConfig) -> None:
    list(threads.map(lambda file: finished(file.read_bytes(), config.jpeg_quality, config.pixels), files))


def _bare(pool: Executor, files: list[Path], side: int) -> None:
    list(pool.map(partial(_resized, side), files, chunksize=8))


def _resized(side: int, file: Path) -> bytes:
    """What somebody would write who wants nothing else."""
    out = io.BytesIO()
    with Image.open(file) as image:
        scale = side / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        image.resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=95)
    return out.getvalue()


def _alternate(works: dict[str, Callable[[], None]], empty: Callable[[], None]) -> dict[str, list[float]]:
    """Seconds of each a round, taken in turns, so that a busy machine slows all alike; `empty` before each round."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        empty()
        for name, work in works.items():
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    return taken


def main() -> None:
    """Print the table."""
    for name, ratio, bound, remark in run():
        print(f"{name:60} {ratio:8.2f}  {bound:8} {remark}")


if __name__ == "__main__":
    main()
