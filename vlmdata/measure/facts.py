"""The facts of a shard: every picture decoded once, and never again while bytes and limits stay."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, run_once, step_key
from vlmdata.config import FilterConfig
from vlmdata.layout import Step
from vlmdata.measure.decoder import Decoded, Limits, decoder_pool
from vlmdata.measure.phash import phash_tiles
from vlmdata.measure.pixels import TILE
from vlmdata.progress import advance
from vlmdata.schema import FACTS


def measure_shard(dataset: Dataset, shard: Shard, config: FilterConfig) -> Shard:
    """Decode and hash a shard's pictures: table `facts`, one row of `schema.FACTS` a picture."""
    # The limits are the only thresholds that facts depend on: beyond them nothing is decoded.
    settings = {"max_pixels": config.max_pixels, "memory_mb": config.decode_memory_mb}

    def work(before: Manifest | None) -> Result:
        return _work(dataset, shard, config, before or _former(dataset, shard, settings))

    return run_once(dataset, shard, Step.FACTS, _reads(dataset, shard), settings, work)


def _reads(dataset: Dataset, shard: Shard) -> list[str]:
    return [dataset.digest(shard, Step.RAW, "samples", ["id", "sha256"])]


def _former(dataset: Dataset, shard: Shard, settings: dict[str, int]) -> Manifest | None:
    """What was measured of the shard before some of its rows came or left."""
    raw = dataset.manifest(shard, Step.RAW).facts.get("before")
    while raw:
        was = Shard(shard.name, 0).at(Step.RAW, raw)
        done = dataset.latest(Step.FACTS, step_key(Step.FACTS, _reads(dataset, was), settings))
        if done:
            return dataset.manifest_at(done)
        raw = dataset.manifest_at(raw).facts.get("before")
    return None


def _work(dataset: Dataset, shard: Shard, config: FilterConfig, before: Manifest | None) -> Result:
    """Pictures that were measured, and not in a way that may be mended, are not decoded again."""
    images = dataset.read(shard, Step.RAW, "images")
    if before is None:
        return _result(measure(images, config))
    earlier = dataset.table(before.tables["facts"])
    earlier = earlier.filter(pc.invert(earlier["retryable"]))
    known = pc.is_in(images["id"], value_set=earlier["id"])
    fresh = measure(images.filter(pc.invert(known)), config)
    merged = pa.concat_tables([earlier, fresh])
    return _result(merged.take(pc.index_in(images["id"], value_set=merged["id"])))


def measure(images: pa.Table, config: FilterConfig) -> pa.Table:
    """Facts of a table of pictures (`schema.IMAGES`), in its order: `schema.FACTS`."""
    limits = Limits(config.max_pixels, config.decode_timeout_s, config.decode_memory_mb)
    pool = decoder_pool(limits, config.workers)
    decoded = pool.measure(_views(images["image"]), partial(advance, Step.FACTS))
    return facts_table(images["id"], decoded)


def _views(column: pa.ChunkedArray) -> list[memoryview]:
    """The pictures' bytes without a copy of each."""
    views = []
    for chunk in column.chunks:
        _, offsets, data = chunk.buffers()
        ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        whole = memoryview(data) if data is not None else memoryview(b"")
        views += [whole[start:end] for start, end in pairwise(ends)]
    return views


def facts_table(ids: pa.ChunkedArray, decoded: list[Decoded]) -> pa.Table:
    """Facts as columns, hashes taken in one batch."""
    rows = pa.Table.from_pylist([one.facts for one in decoded], schema=_reported())
    whole = np.array([len(one.tile) > 0 for one in decoded], dtype=bool)
    tiles = np.frombuffer(b"".join(one.tile for one in decoded), np.uint8).reshape(-1, TILE, TILE)
    hashes = np.zeros(len(decoded), np.uint64)
    hashes[whole] = phash_tiles(tiles)
    columns = {name: rows[name] for name in rows.column_names}
    columns["id"] = ids
    columns["retryable"] = pc.fill_null(rows["retryable"], False)
    columns["phash"] = pa.array(hashes, mask=~whole)
    return pa.table([columns[name] for name in FACTS.names], schema=FACTS)


def _reported() -> pa.Schema:
    """What a decoder reports: the facts less id and hash, nothing required."""
    return pa.schema([pa.field(f.name, f.type) for f in FACTS if f.name not in {"id", "phash"}])


def _result(facts: pa.Table) -> Result:
    failed = pc.sum(facts["retryable"]).as_py() or 0
    broken = pc.sum(pc.is_valid(facts["error"])).as_py() or 0
    total = facts.num_rows
    counts = Counts(came=total, kept=total - broken, rejected=broken - failed, failed=failed)
    return Result({"facts": facts}, samples=counts, open=failed)
