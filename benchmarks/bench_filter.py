"""The filter stage, against a bare loop that only decodes the same files with Pillow, both on all cores.

Both sides work with processes that run already: what starting them costs is
counted on neither. The stage runs as in a build, with as many shards at a time
as there are cores. The sides take turns, and the median of the rounds' ratios
counts.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
from PIL import Image

from benchmarks.builds import Row, plain_config, write_source
from benchmarks.photos import photo_files
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.filtering.duplicates import find_duplicates
from vlmdata.filtering.pool import Terms
from vlmdata.filtering.shards import filter_shard
from vlmdata.ingest.listing import list_source
from vlmdata.ingest.shards import ingest_shard
from vlmdata.layout import Step
from vlmdata.measure.facts import measure, measure_shard

PHOTOS = 1_000
SHARDS = 2
ROUNDS = 15


def run() -> list[Row]:
    """(name, ratio, bound, remark) of the whole stage, and of decoding and hashing alone."""
    files = photo_files(PHOTOS)
    with tempfile.TemporaryDirectory() as folder, _decoding_processes() as bare:
        write_source(Path(folder), files)
        config = plain_config(Path(folder), PHOTOS // SHARDS)
        dataset = Dataset(config.store, config.dataset)
        shards = [ingest_shard(dataset, shard, config) for shard in list_source(dataset, config)]
        images = [dataset.read(shard, Step.RAW, "images") for shard in shards]
        stage = partial(_filter_stage, dataset, shards, config)
        alone = partial(_measure_all, images, config)
        # Decoders start, the search for duplicates is compiled.
        for work in (stage, alone, partial(bare, files)):
            work()
        empty = partial(shutil.rmtree, Path(dataset.store_url, dataset.name, Step.FILTERED))
        seconds = _alternate({"bare": partial(bare, files), "stage": stage, "measure": alone}, empty)
    rate = {name: PHOTOS / statistics.median(taken) for name, taken in seconds.items()}
    told = f"{rate['stage']:.0f} images/s, bare {rate['bare']:.0f}/s; {os.cpu_count()} processes, {ROUNDS} rounds"
    return [
        ("filter stage / bare decoding", _ratio(seconds, "stage"), ">= 0.6", told),
        ("decode and hash / bare decoding", _ratio(seconds, "measure"), "", f"{rate['measure']:.0f} images/s"),
    ]


def _ratio(seconds: dict[str, list[float]], name: str) -> float:
    """Median over the rounds of how much of bare decoding's rate it reaches."""
    return statistics.median(bare / own for bare, own in zip(seconds["bare"], seconds[name], strict=True))


def _filter_stage(dataset: Dataset, shards: list[Shard], config: BuildConfig) -> None:
    """The stage, where it has no checkpoint yet: facts, near-duplicates, rules."""
    with ThreadPoolExecutor(os.cpu_count()) as engine:
        measured = list(engine.map(lambda shard: measure_shard(dataset, shard, config.filter), shards))
        decided = find_duplicates(dataset, measured, Terms(config.filter, config.dedup))
        list(engine.map(lambda shard: filter_shard(dataset, shard, config.filter, config.dedup), decided))


def _measure_all(images: list[pa.Table], config: BuildConfig) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as engine:
        list(engine.map(lambda table: measure(table, config.filter), images))


@contextmanager
def _decoding_processes() -> Iterator[Callable[[list[Path]], None]]:
    """A loop over files that decodes each and keeps nothing, on as many processes as cores."""
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores) as pool:

        def decode_all(files: list[Path]) -> None:
            list(pool.map(_decode, files, chunksize=max(1, len(files) // (8 * cores))))

        yield decode_all


def _decode(file: Path) -> None:
    with Image.open(file) as image:
        image.load()


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
