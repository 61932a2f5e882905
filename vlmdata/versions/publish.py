"""The end of a build: its shards and its export become the next version."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.errors import Overtaken
from vlmdata.filtering.hash_index import INDEX, HashIndex, rows_of
from vlmdata.layout import Stage, Step
from vlmdata.runs import Run
from vlmdata.versions.changes import changes
from vlmdata.versions.version import Changes, Version, put_version, read_version, steps_of, version_under


def publish(run: Run, base: int | None, checked: Sequence[Shard], exported: Sequence[Shard], export: str) -> Version:
    """Publish a build as the version after `base`; the one that stands, if that is the same already.

    Args:
        base: The newest version when the run began, which its decisions rest on.
        checked: Its shards, as 03 leaves them.
        exported: The export's shards.
        export: Where the export's files are.

    Raises:
        Overtaken: another run has published something else meanwhile.
    """
    dataset = run.dataset
    before = None if base is None else read_version(dataset, base)
    made = _version(run, before, checked, exported, export)
    if before is not None and before.same_content(made):
        return before
    if put_version(dataset, made):
        return made
    other = read_version(dataset, made.number)
    if other.same_content(made):
        return other
    raise Overtaken(
        f"version {other.number}: {_who(Run(dataset, other.run))} published it at {other.published}, while this run, "
        f"{run.number}, was on its way; what this one made is safe: run it again, and it goes on from there"
    )


def _who(run: Run) -> str:
    """A run, where it was made, and since when."""
    told = run.read("start") or {}
    return f"run {run.number} on {told.get('by', 'an unknown machine')}, begun at {told.get('started')},"


def _version(
    run: Run, before: Version | None, checked: Sequence[Shard], exported: Sequence[Shard], export: str
) -> Version:
    dataset = run.dataset
    decided = dataset.manifest(checked[0], Step.DUPLICATES)
    final = [dataset.manifest(shard, Step.FINAL) for shard in exported]
    rows, samples = {shard.name: shard.rows for shard in checked}, sum(one.samples.kept for one in final)
    return Version(
        number=(before.number if before else 0) + 1,
        parent=before.number if before else None,
        run=run.number,
        published=datetime.now(UTC).isoformat(timespec="seconds"),
        samples=samples,
        captions=sum(one.captions.kept for one in final),
        changes=changes(dataset, before.shards, checked) if before else Changes(added=samples),
        export=export,
        rows=rows | {f"{Stage.FINAL}/{shard.name}": shard.rows for shard in exported},
        steps=steps_of(checked, exported),
        rules=decided.facts["rules"],
        reads=decided.facts["reads"],
        index=_index(dataset, checked, before),
    )


def _index(dataset: Dataset, checked: Sequence[Shard], before: Version | None) -> HashIndex:
    """The index that this version's decision rests on, with what it decided and what it publishes."""
    decision = dataset.manifest(checked[0], Step.DUPLICATES)
    under = version_under(dataset, decision.facts["rules"], before.number if before else None)
    stood, then = (under.index, under.steps[Step.CHECKED]) if under else (HashIndex(), {})
    decided = set(decision.facts["decided"])
    judged = {shard.name for shard in checked if then.get(shard.name) != shard.manifests[Step.CHECKED]} - decided
    rows = [dataset.table(decision.tables["decided"])]
    if judged:
        rows.append(rows_of(stood.read(dataset), sorted(judged)))
    changed = decided | judged
    told = _with_published(pa.concat_tables(rows), dataset, [shard for shard in checked if shard.name in changed])
    return stood.updated(dataset, told, changed, [shard.name for shard in checked])


def _with_published(rows: pa.Table, dataset: Dataset, shards: Sequence[Shard]) -> pa.Table:
    """Rows of these shards, with what 03 lets through said to be published."""
    ids = [dataset.read(shard, Step.CHECKED, "samples", ["id"])["id"] for shard in shards]
    kept = pa.chunked_array([chunk for each in ids for chunk in each.chunks], pa.string())
    published = pc.is_in(rows["id"], value_set=kept)
    return pa.table([published if name == "published" else rows[name] for name in INDEX.names], schema=INDEX)
