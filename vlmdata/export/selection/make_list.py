"""Makes a list of an evaluation set's pictures: hashed as stage 01 hashes, embedded as stage 03 embeds."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig, QualityConfig
from vlmdata.config_reading import parse_config
from vlmdata.errors import SourceError
from vlmdata.export.selection.benchmark_list import ROWS, write_list
from vlmdata.here import each_here
from vlmdata.ingest.listing import list_source
from vlmdata.ingest.shards import ingest_shard
from vlmdata.layout import Step
from vlmdata.measure.facts import measure_shard
from vlmdata.quality.embeddings import column_vectors, embed_some, embedding_settings
from vlmdata.quality.judges import judges


@dataclass(frozen=True)
class Made:
    """How many pictures are on the list, and how many could not be read and are not."""

    pictures: int
    unreadable: int


def make_list(against: str, name: str, out: Path, quality: QualityConfig | None, image_column: str = "image") -> Made:
    """Write the list of an evaluation set.

    Args:
        against: A folder of pictures, or parquet files.
        name: Of the evaluation set.
        out: The file to write.
        quality: Whose model embeds the pictures; None: hashes alone.
        image_column: Of parquet files.

    Raises:
        SourceError: there is no picture that can be read.
        ConfigError: the file cannot be written, or the model cannot be had.
    """
    with tempfile.TemporaryDirectory(prefix="vlmdata-benchmark-") as folder:
        config = _config(against, folder, image_column)
        dataset = Dataset(config.store, config.dataset)
        raw = each_here(Step.RAW, list_source(dataset, config), lambda shard: ingest_shard(dataset, shard, config))
        shards = each_here(Step.FACTS, raw, lambda shard: measure_shard(dataset, shard, config.filter))
        parts = [_rows(dataset, shard, name) for shard in shards]
        rows = pa.concat_tables([rows for rows, _ in parts]).combine_chunks()
        listed = sum(dataset.manifest(shard, Step.RAW).samples.came for shard in shards)
        if not rows.num_rows:
            raise SourceError(f"--against {against}: none of {listed} pictures can be read; name a folder of pictures")
        vectors = [_vectors(dataset, shard, ids, quality) for shard, (_, ids) in zip(shards, parts, strict=True)]
        settings: dict[str, Any] = {}
        if quality is not None:
            settings = dict(embedding_settings(judges(quality).default, quality.device))
        embedded = np.concatenate([one for one in vectors if one is not None]) if quality else None
        write_list(out, rows, embedded, settings)
        return Made(rows.num_rows, listed - rows.num_rows)


def _config(against: str, folder: str, image_column: str) -> BuildConfig:
    path = Path(against)
    parquet = path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet")))
    kind = {"kind": "parquet", "image_column": image_column} if parquet else {"kind": "folder"}
    told = {"dataset": "benchmark", "store": folder, "source": {**kind, "path": str(path.absolute())}}
    return parse_config({**told, "filter": {"min_side": 1}}, "--against")


def _rows(dataset: Dataset, shard: Shard, name: str) -> tuple[pa.Table, pa.ChunkedArray]:
    """`ROWS` of the pictures that decode, and their ids."""
    facts = dataset.read(shard, Step.FACTS, "facts", ["id", "phash"])
    facts = facts.filter(pc.is_valid(facts["phash"]))
    samples = dataset.read(shard, Step.RAW, "samples", ["id", "key", "sha256"])
    samples = samples.take(pc.index_in(facts["id"], value_set=samples["id"]))
    benchmark = pa.repeat(pa.scalar(name), facts.num_rows)
    return pa.table([benchmark, samples["key"], samples["sha256"], facts["phash"]], schema=ROWS), facts["id"]


def _vectors(dataset: Dataset, shard: Shard, ids: pa.ChunkedArray, quality: QualityConfig | None) -> Any:
    """Their embeddings, float32 (n, dim)."""
    if quality is None or not len(ids):
        return None
    judge = judges(quality).default
    made = embed_some(dataset, shard, judge, quality.device, ids, Shard(shard.name, 0))
    table: Any = made.tables["images"]
    return column_vectors(table["embedding"])
