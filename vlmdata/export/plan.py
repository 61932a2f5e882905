"""Which samples go into which exported file, whichever shards they lie in.

The plan follows the source's order (key, then id) and the export's own sizes,
so the files are the same however the source was cut. An export is named by
the digests of what its rows say and by its settings: the same content under
the same settings finds the files that are there.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Result, Shard, run_once, step_key
from vlmdata.config import ExportConfig
from vlmdata.cuts import cuts
from vlmdata.export.mix import is_set
from vlmdata.export.rows import CAPTION_COLUMNS, SAMPLE_COLUMNS, row_digests, with_captions
from vlmdata.layout import Step
from vlmdata.schema import SAMPLES

PLAN = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("checked", pa.string(), metadata={"note": "manifest whose tables describe the sample"}),
        pa.field("raw", pa.string(), metadata={"note": "manifest whose table holds its picture"}),
    ]
)


_FILE_BYTES = 256 << 20
"""Original bytes in one file, at most: a file is made in memory, whatever the pictures are."""


def plan_export(dataset: Dataset, shards: list[Shard], config: ExportConfig) -> list[Shard]:
    """Cut all kept samples into export shards, each with a checkpoint of `Step.EXPORT_PLAN`.

    Reads metadata only, about 150 bytes a sample in memory. An export shard's
    plan (table `plan`, `PLAN`) is all that `export_shard` needs.
    """
    rows = _in_source_order(dataset, shards)
    key = export_key(b"".join(rows["digest"].to_pylist()), config)
    parts = list(cuts(rows["bytes"].to_numpy(), config.samples_per_shard, _FILE_BYTES))
    return [
        _plan_one(
            dataset, shards, rows.slice(start, stop - start), f"{number:05d}", {"export": key, "shards": len(parts)}
        )
        for number, (start, stop) in enumerate(parts)
    ]


def export_key(row_digests: bytes, config: ExportConfig) -> str:
    """The name of an export: 32 hex digits of its rows, in order, and its settings."""
    return step_key(Step.FINAL, [sha256(row_digests).hexdigest()], export_settings(config))


def export_settings(config: ExportConfig) -> dict[str, Any]:
    """What decides an export's content, as its name and its manifest tell it; a mix only where one is set."""
    settings = {**config.settings(), "formats": sorted(set(config.formats))}
    return settings if is_set(config.captions) else {k: v for k, v in settings.items() if k != "captions"}


def _in_source_order(dataset: Dataset, shards: list[Shard]) -> pa.Table:
    """Every sample's id, key, size, digest and the index of its shard."""
    parts = [_described(dataset, shard, index) for index, shard in enumerate(shards)]
    if not parts:
        nothing = SAMPLES.empty_table().select(["id", "key", "bytes"])
        return nothing.append_column("digest", pa.array([], pa.binary())).append_column(
            "shard", pa.array([], pa.int32())
        )
    return pa.concat_tables(parts).sort_by([("key", "ascending"), ("id", "ascending")])


def _described(dataset: Dataset, shard: Shard, index: int) -> pa.Table:
    samples = dataset.read(shard, Step.CHECKED, "samples", [*SAMPLE_COLUMNS, "bytes"])
    captions = dataset.read(shard, Step.CHECKED, "captions", CAPTION_COLUMNS)
    digests = row_digests(with_captions(samples, captions))
    here = pa.repeat(pa.scalar(index, pa.int32()), samples.num_rows)
    return samples.select(["id", "key", "bytes"]).append_column("digest", digests).append_column("shard", here)


def _plan_one(dataset: Dataset, shards: list[Shard], rows: pa.Table, name: str, facts: dict[str, Any]) -> Shard:
    def work(_: object) -> Result:
        count = Counts(**{"in": rows.num_rows, "kept": rows.num_rows})
        return Result({"plan": _plan_table(shards, rows)}, samples=count, facts=facts)

    # Not of the parents' paths: other cuts of the same rows give the same export.
    return run_once(dataset, Shard(name, rows.num_rows), Step.EXPORT_PLAN, [facts["export"], name], {}, work)


def _plan_table(shards: list[Shard], rows: pa.Table) -> pa.Table:
    checked = pa.array([shard.manifests[Step.CHECKED.value] for shard in shards], pa.string())
    raw = pa.array([shard.manifests[Step.RAW.value] for shard in shards], pa.string())
    return pa.table([rows["id"], pc.take(checked, rows["shard"]), pc.take(raw, rows["shard"])], schema=PLAN)
