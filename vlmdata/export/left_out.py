"""What a selection leaves out: shards of the export that have no files, so that every sample is accounted for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result
from vlmdata.errors import BrokenInvariant
from vlmdata.export.tallies import counts
from vlmdata.schema import CAPTION_REJECTS, CAPTIONS, REJECTS, filled

_REASONS = ["outcome", "code", "value", "bound", "detail"]
_AT_ONCE = 50_000
"""Samples of one such shard; their captions are read at once."""


def by_selection(dataset: Dataset, rows: pa.Table, selected: str | None) -> tuple[pa.Table, pa.Table | None]:
    """Rows that are exported, each with its `split` (null: there are none), and rows that are not, with their reasons.

    Args:
        rows: At least id and digest; the digest of a row tells its split, too.
        selected: The checkpoint of a selection; null: all are exported.
    """
    if selected is None:
        return rows.append_column("split", pa.nulls(rows.num_rows, pa.string())), None
    chosen = dataset.table(dataset.manifest_at(selected).tables["selected"])
    at = pc.index_in(rows["id"], value_set=chosen["id"])
    if at.null_count:
        raise BrokenInvariant(f"export: nothing was decided about {at.null_count} samples")
    chosen = chosen.take(at)
    digests = pc.binary_join_element_wise(
        rows["digest"].cast(pa.binary()), pc.fill_null(chosen["split"], "").cast(pa.binary()), b""
    )
    rows = rows.set_column(rows.column_names.index("digest"), "digest", digests)
    out = pc.is_valid(chosen["code"])
    left = rows.filter(out)
    for name in _REASONS:
        left = left.append_column(name, chosen[name].filter(out))
    return rows.append_column("split", chosen["split"]).filter(pc.invert(out)), left


def left_out_parts(left: pa.Table) -> Iterator[tuple[str, str, pa.Table]]:
    """(name, digest, rows) of the shards of what is left out."""
    for number, start in enumerate(range(0, left.num_rows, _AT_ONCE)):
        part = left.slice(start, _AT_ONCE).combine_chunks()
        told = sha256(repr([part[name].to_pylist() for name in ("digest", *_REASONS)]).encode()).hexdigest()
        yield f"left-out-{number:05d}", told, part


def reasons_of(left: pa.Table) -> pa.Table:
    """The reasons of some rows that are left out, as `schema.REJECTS`."""
    told = {name: left[name] for name in ("id", "key", *_REASONS)}
    return filled(REJECTS, left.num_rows, **told, retryable=False)


def is_left_out(manifest: Manifest) -> bool:
    """Whether a shard of the export, or its plan, is of what is left out."""
    return bool(manifest.facts.get("left_out"))


def without_left_out(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Those that have files."""
    return [one for one in manifests if not is_left_out(one)]


def accounted(dataset: Dataset, plan: Manifest, empty: Mapping[str, pa.Table]) -> Result:
    """The accounts of a shard without files: `rejects`, and `caption_rejects` of all captions of theirs.

    Args:
        dataset: Where its samples are.
        plan: Its plan; table `rejects` says why.
        empty: Tables that a shard with files has.
    """
    rejects = dataset.table(plan.tables["rejects"])
    captions = _captions(dataset, plan, rejects)
    tables = {**empty, "tallies": _tallies(rejects), "rejects": rejects, "caption_rejects": captions}
    samples = Counts.of(0, rejects["outcome"], came=rejects.num_rows)
    told: dict[str, Any] = {"files": [], "score_sum": 0.0, "score_count": 0}
    spoken = Counts.of(0, captions["outcome"], came=captions.num_rows)
    return Result(tables, samples=samples, captions=spoken, facts={**plan.facts, **told})


def _tallies(rejects: pa.Table) -> pa.Table:
    """For the card: how many for which reason, and of which evaluation set."""
    theirs = rejects.filter(pc.equal(rejects["code"], "contaminated"))
    benchmarks = pc.replace_substring_regex(theirs["detail"], "(?s): .*$", "")
    return pa.concat_tables([counts("not_selected", rejects["code"]), counts("contaminated", benchmarks)])


def _captions(dataset: Dataset, plan: Manifest, rejects: pa.Table) -> pa.Table:
    rows = dataset.table(plan.tables["plan"], ["id", "checked"])
    parts = [CAPTION_REJECTS.empty_table()]
    for path in pc.unique(rows["checked"]).to_pylist():
        captions = dataset.table(dataset.manifest_at(path).tables["captions"], CAPTIONS.names)
        place = pc.index_in(captions["id"], value_set=rejects["id"])
        captions, place = captions.filter(pc.is_valid(place)), place.drop_null()
        outcome = rejects["outcome"].take(place)
        told = {name: captions[name] for name in CAPTIONS.names}
        code = pc.binary_join_element_wise("sample", outcome, "_")
        parts.append(filled(CAPTION_REJECTS, captions.num_rows, **told, outcome=outcome, code=code))
    return pa.concat_tables(parts)
