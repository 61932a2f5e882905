"""Which samples go into which exported file, whichever shards they lie in.

The plan follows the source's order (key, then id) and the export's own sizes,
so the files are the same however the source was cut; splits have files of
their own. An export is named by
the digests of what its rows say and by its settings: the same content under
the same settings finds the files that are there.

An increment leaves the files of an earlier export as they are, as long as all
that they hold is still to be exported as it was; a file that held something
else is written anew, less that, and what is new goes into files of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Result, Shard, run_once, step_key
from vlmdata.config import ExportConfig
from vlmdata.cuts import cuts
from vlmdata.export.left_out import by_selection, left_out_parts, reasons_of
from vlmdata.export.mix import is_set
from vlmdata.export.names import shard_name, shard_of
from vlmdata.export.rows import CAPTION_COLUMNS, SAMPLE_COLUMNS, row_digests, with_captions
from vlmdata.layout import Step
from vlmdata.schema import SAMPLES

PLAN = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("checked", pa.string(), metadata={"note": "manifest whose tables describe the sample"}),
        pa.field("raw", pa.string(), metadata={"note": "manifest whose table holds its picture"}),
        pa.field("digest", pa.binary(), metadata={"note": "of what the export says of it"}),
    ]
)

_LATER = ("bytes_per_shard", "splits", "split_by", "decontaminate", "select", "pixels")
"""Keys that an export may leave unsaid: at their defaults it is what it was before there were any."""


def plan_export(
    dataset: Dataset, shards: list[Shard], config: ExportConfig, before: Sequence[Shard] = ()
) -> list[Shard]:
    """Cut all kept samples into export shards, each with a checkpoint of `Step.EXPORT_PLAN`.

    Reads metadata only, about 150 bytes a sample in memory. An export shard's
    plan (table `plan`, `PLAN`) is all that `export_shard` needs.

    Args:
        before: The export shards of the version before, for `config.increments`; of another form they say nothing.
    """
    selected = shards[0].manifests.get(Step.SELECTED) if shards else None
    rows, left = by_selection(dataset, _in_source_order(dataset, shards), selected)
    made = _with_files(dataset, shards, rows, config, before)
    if left is not None:
        key = dataset.manifest(made[0], Step.EXPORT_PLAN).facts["export"] if made else export_key(b"", config)
        facts = {"export": key, "left_out": True, "increment": 0}
        made += [
            _plan_one(dataset, shards, part, name, facts, reads=[told], rejects=reasons_of(part))
            for name, told, part in left_out_parts(left)
        ]
    return [shard.at(Step.SELECTED, selected) for shard in made] if selected else made


def _with_files(
    dataset: Dataset, shards: list[Shard], rows: pa.Table, config: ExportConfig, before: Sequence[Shard]
) -> list[Shard]:
    form = _form(config)
    earlier = [shard for shard in before if dataset.manifest(shard, Step.EXPORT_PLAN).facts.get("form") == form]
    if config.increments and earlier:
        return _increment(dataset, shards, rows, config, earlier)
    key = export_key(b"".join(rows["digest"].to_pylist()), config)
    parts = list(_cut(rows, config, {}))
    facts = {"export": key, "shards": len(parts), "form": form, "increment": 0}
    return [_plan_one(dataset, shards, part, name, facts) for name, part in parts]


def _cut(rows: pa.Table, config: ExportConfig, first: Mapping[str, int]) -> Iterator[tuple[str, pa.Table]]:
    """Files of the export's own sizes, by name: split after split, each numbered from its `first`."""
    for split in sorted(pc.unique(rows["split"]).to_pylist(), key=lambda split: split or ""):
        own = rows.filter(pc.equal(rows["split"], split)) if split else rows
        sizes = cuts(own["bytes"].to_numpy(), config.samples_per_shard, config.bytes_per_shard)
        for number, (start, stop) in enumerate(sizes, first.get(split or "", 0)):
            yield shard_name(split, number), own.slice(start, stop - start)


def _increment(
    dataset: Dataset, shards: list[Shard], rows: pa.Table, config: ExportConfig, before: Sequence[Shard]
) -> list[Shard]:
    """The shards of `before` that are as they were, those that are written anew, and new ones; by name."""
    known = pa.concat_tables([_planned(dataset, shard, index) for index, shard in enumerate(before)]).combine_chunks()
    at = pc.index_in(rows["id"], value_set=known["id"])
    file = known["file"].take(at)
    same = pc.fill_null(pc.equal(known["digest"].take(at), rows["digest"]), False)
    unmoved = np.bincount(file.filter(same).to_numpy(), minlength=len(before))
    there = np.bincount(file.drop_null().to_numpy(), minlength=len(before))
    as_it_was = [unmoved[index] == shard.rows for index, shard in enumerate(before)]
    parts = [
        (shard.name, rows.filter(pc.fill_null(pc.equal(file, index), False)))
        for index, shard in enumerate(before)
        if there[index] and not as_it_was[index]
    ]
    first: dict[str, int] = {}
    for split, number in (shard_of(shard.name) for shard in before):
        first[split or ""] = max(first.get(split or "", 0), int(number) + 1)
    parts += _cut(rows.filter(pc.is_null(at)), config, first)
    digests = [f"{name} ".encode() + b"".join(part["digest"].to_pylist()) for name, part in parts]
    number = 1 + max(dataset.manifest(shard, Step.EXPORT_PLAN).facts["increment"] for shard in before)
    facts = {"export": export_key(b"\n".join(digests), config), "shards": len(parts), "form": _form(config)}
    made = [_plan_one(dataset, shards, part, name, {**facts, "increment": number}) for name, part in parts]
    stays = [shard for shard, stay in zip(before, as_it_was, strict=True) if stay]
    return sorted([*stays, *made], key=lambda shard: shard.name)


def _planned(dataset: Dataset, shard: Shard, index: int) -> pa.Table:
    plan = dataset.read(shard, Step.EXPORT_PLAN, "plan", ["id", "digest"])
    return plan.append_column("file", pa.repeat(pa.scalar(index, pa.int64()), plan.num_rows))


def _form(config: ExportConfig) -> str:
    """What two exports share whose files can stand side by side."""
    return step_key(Step.FINAL, [], export_settings(config))


def export_key(row_digests: bytes, config: ExportConfig) -> str:
    """The name of an export: 32 hex digits of its rows, in order, and its settings."""
    return step_key(Step.FINAL, [sha256(row_digests).hexdigest()], export_settings(config))


def export_settings(config: ExportConfig) -> dict[str, Any]:
    """What decides an export's content, as its name and its manifest tell it; what came later only where it is set."""
    settings = {**config.settings(), "formats": sorted(set(config.formats))}
    unsaid = {"increments"} if is_set(config.captions) else {"increments", "captions"}
    usual = ExportConfig().settings()
    unsaid |= {name for name in _LATER if settings[name] == usual[name]}
    return {name: value for name, value in settings.items() if name not in unsaid}


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
    rows = _with_digests(dataset, shard.manifests[Step.CHECKED.value])
    return rows.append_column("shard", pa.repeat(pa.scalar(index, pa.int32()), rows.num_rows))


def _with_digests(dataset: Dataset, checked: str) -> pa.Table:
    """Id, key, size and digest of all that a manifest of 03 lets through."""
    tables = dataset.manifest_at(checked).tables
    samples = dataset.table(tables["samples"], [*SAMPLE_COLUMNS, "bytes"])
    digests = row_digests(with_captions(samples, dataset.table(tables["captions"], CAPTION_COLUMNS)))
    return samples.select(["id", "key", "bytes"]).append_column("digest", digests)


def digests_now(dataset: Dataset, plan: pa.Table, split: str | None = None) -> pa.Array:
    """What the export says of each row of a plan (`PLAN`), of one split, as its checkpoints tell it now."""
    found = pa.concat_tables([_with_digests(dataset, path) for path in pc.unique(plan["checked"]).to_pylist()])
    found = found.combine_chunks()
    digests = found["digest"].take(pc.index_in(plan["id"], value_set=found["id"]))
    return pc.binary_join_element_wise(digests.cast(pa.binary()), (split or "").encode(), b"")


def _plan_one(
    dataset: Dataset,
    shards: list[Shard],
    rows: pa.Table,
    name: str,
    facts: dict[str, Any],
    reads: Sequence[str] = (),
    **more: pa.Table,
) -> Shard:
    def work(_: object) -> Result:
        count = Counts(**{"in": rows.num_rows, "kept": rows.num_rows})
        return Result({"plan": _plan_table(shards, rows), **more}, samples=count, facts=facts)

    # Not of the parents' paths: other cuts of the same rows give the same export.
    return run_once(dataset, Shard(name, rows.num_rows), Step.EXPORT_PLAN, [facts["export"], name, *reads], {}, work)


def _plan_table(shards: list[Shard], rows: pa.Table) -> pa.Table:
    checked = pa.array([shard.manifests[Step.CHECKED.value] for shard in shards], pa.string())
    raw = pa.array([shard.manifests[Step.RAW.value] for shard in shards], pa.string())
    places = [pc.take(checked, rows["shard"]), pc.take(raw, rows["shard"])]
    return pa.table([rows["id"], *places, rows["digest"]], schema=PLAN)
