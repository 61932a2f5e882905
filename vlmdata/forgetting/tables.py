"""Every table and manifest in the store without whom a withdrawal is about.

The one exception to a checkpoint's immutability: a manifest is written anew
under its own path, so that all that names it, old versions included, finds
what is left; the tables that it named before are deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Manifest, TableRef, put_table
from vlmdata.forgetting.tombstones import FORGOTTEN, blank, row_hashes
from vlmdata.forgetting.who import Who, each, manifests
from vlmdata.layout import Step
from vlmdata.schema import FETCHES, ID, LISTING, REJECTS, filled
from vlmdata.versions.version import numbers, read_version

_FETCHES = pa.schema([ID, *FETCHES])
_END = ("id", "outcome", "code", "retryable")
_CALLED = frozenset({"key", "url"})
"""Columns that hold the source's own name for a row."""
_NAMES = ("id", "caption_id", "origin")
"""Columns by which a row is somebody's."""


class Scrubber:
    """Rewrites what holds rows of theirs; remembers what it has done and what nothing names any more."""

    def __init__(self, dataset: Dataset, who: Who) -> None:
        self.dataset = dataset
        self.who = who
        self._ids = pa.array(sorted(who.ids), pa.string())
        self._captions = pa.array(sorted(who.captions), pa.string())
        self._origins = pa.array([f"duplicate:{id_}" for id_ in sorted(who.ids)], pa.string())
        self._done: dict[str, tuple[TableRef, pa.Table] | None] = {}
        self.replaced: set[str] = set()
        """Paths of tables that are not named any more."""
        self.rewritten = 0
        """Manifests."""

    def scrub(self, step: Step, which: Callable[[Manifest], bool] = lambda _: True) -> dict[str, Manifest]:
        """All manifests of a step, or some of them; returns those that were rewritten, by path."""
        changed = {}
        for path, manifest in manifests(self.dataset, step).items():
            new = self._manifest(step, manifest) if which(manifest) else None
            if new is not None:
                self.dataset.replace_manifest(path, new)
                changed[path] = new
                self.rewritten += 1
        return changed

    def table(self, step: Step, ref: TableRef) -> tuple[TableRef, pa.Table] | None:
        """A table less their rows, and those rows; None: it has none."""
        if ref.path not in self._done:
            self._done[ref.path] = self._without(step, ref)
        return self._done[ref.path]

    def _without(self, step: Step, ref: TableRef) -> tuple[TableRef, pa.Table] | None:
        looked_at = [name for name in _NAMES if name in ref.columns]
        if not looked_at:
            return None
        theirs = self._theirs(self.dataset.table(ref, [*looked_at, *({"code", *_CALLED} & ref.columns.keys())]))
        if not pc.any(theirs).as_py():
            return None
        table = self.dataset.table(ref)
        self.replaced.add(ref.path)
        left = table.filter(pc.invert(theirs)).combine_chunks()
        return put_table(self.dataset, step, left), table.filter(theirs)

    def _theirs(self, rows: pa.Table) -> pa.Array:
        flags = pa.array([False] * rows.num_rows, pa.bool_())
        for name, values in (("id", self._ids), ("caption_id", self._captions), ("origin", self._origins)):
            if name in rows.column_names:
                flags = pc.or_(flags, pc.is_in(rows[name], value_set=values))
        if "code" in rows.column_names:
            # What 00_raw goes on counting, unless it is still called what the source called it.
            counted = pc.fill_null(pc.equal(rows["code"], FORGOTTEN), False)
            for name in _CALLED & set(rows.column_names):
                counted = pc.and_(counted, pc.starts_with(rows[name], f"{FORGOTTEN}:"))
            flags = pc.and_not(flags, counted)
        return flags

    def _manifest(self, step: Step, manifest: Manifest) -> Manifest | None:
        if step is Step.LISTING:
            return self._listing(manifest)
        found = {name: self.table(step, ref) for name, ref in manifest.tables.items()}
        gone = {name: told[1] for name, told in found.items() if told is not None}
        if not gone:
            return None
        tables = {name: told[0] if (told := found[name]) else ref for name, ref in manifest.tables.items()}
        new = manifest.model_copy(update={"tables": tables, **_accounts(manifest, gone)})
        return self._told(new, gone) if step is Step.RAW else new

    def _listing(self, manifest: Manifest) -> Manifest | None:
        ref = manifest.tables.get("listing")
        if ref is None:
            return None
        if ref.path not in self._done:
            listing = self.dataset.table(ref)
            gone = [digest in self.who.rows for digest in row_hashes(listing)]
            told = put_table(self.dataset, Step.LISTING, blank(listing, gone)) if any(gone) else None
            self._done[ref.path] = (told, LISTING.empty_table()) if told else None
            if told:
                self.replaced.add(ref.path)
        done = self._done[ref.path]
        if done is None:
            return None
        # 00_raw finds the pictures that stay by what the listing was when they were read.
        was = [*manifest.facts.get("was", ()), ref.digest(LISTING.names)]
        tables = {**manifest.tables, "listing": done[0]}
        return manifest.model_copy(update={"tables": tables, "facts": {**manifest.facts, "was": was}})

    def _told(self, manifest: Manifest, gone: Mapping[str, pa.Table]) -> Manifest:
        """00_raw goes on counting them: as rejected, for this reason and with no other word."""
        ids = sorted({id_ for name in ("samples", "rejects") if name in gone for id_ in gone[name]["id"].to_pylist()})
        rows = filled(
            REJECTS,
            len(ids),
            id=pa.array(ids, pa.string()),
            key=pa.array([f"{FORGOTTEN}:{id_}" for id_ in ids], pa.string()),
            outcome="rejected",
            code=FORGOTTEN,
            retryable=False,
        )
        told = {"rejects": rows}
        if "fetches" in manifest.tables:
            told["fetches"] = filled(_FETCHES, len(ids), **{n: rows[n] for n in _END}, url=rows["key"], attempts=0)
        self.replaced |= {manifest.tables[name].path for name in told}
        more = {name: pa.concat_tables([self.dataset.table(manifest.tables[name]), told[name]]) for name in told}
        counts = manifest.samples + Counts(came=len(ids), rejected=len(ids))
        new = {name: put_table(self.dataset, Step.RAW, table.combine_chunks()) for name, table in more.items()}
        tables = {**manifest.tables, **new}
        reasons = dict(sorted((Counter(manifest.reasons) + Counter({FORGOTTEN: len(ids)})).items()))
        return manifest.model_copy(update={"tables": tables, "samples": counts, "reasons": reasons})

    def forget_tables(self) -> int:
        """Delete the tables that nothing names any more; returns how many."""
        unnamed = self.replaced - named_tables(self.dataset)
        each(self.dataset.store.delete, unnamed)
        return len(unnamed)


def named_tables(dataset: Dataset) -> set[str]:
    """Paths of all tables that a manifest or a version's index names."""
    every = [one for step in Step for one in manifests(dataset, step).values()]
    by_manifests = {ref.path for one in every for ref in one.tables.values()}
    indexes = [read_version(dataset, number).index for number in numbers(dataset)]
    return by_manifests | {ref.path for index in indexes for ref in index.segments}


def _accounts(manifest: Manifest, gone: Mapping[str, pa.Table]) -> dict[str, object]:
    """in = kept + rejected + held + failed, of what is left."""
    samples = _less(manifest.samples, gone.get("samples"), gone.get("rejects"))
    captions = _less(manifest.captions, gone.get("captions"), gone.get("caption_rejects"))
    facts = dict(manifest.facts)
    if "samples" in gone and "best_score" in gone["samples"].column_names and "score_sum" in facts:
        best = gone["samples"]["best_score"].drop_null()
        facts["score_sum"] -= float(pc.sum(best.cast(pa.float64())).as_py() or 0.0)
        facts["score_count"] -= len(best)
    return {
        "samples": samples,
        "captions": captions,
        "reasons": _fewer(manifest.reasons, gone.get("rejects")),
        "caption_reasons": _fewer(manifest.caption_reasons, gone.get("caption_rejects")),
        "facts": facts,
    }


def _less(counts: Counts, kept: pa.Table | None, lost: pa.Table | None) -> Counts:
    outcomes = Counter(lost["outcome"].to_pylist() if lost is not None else ())
    away = {"kept": kept.num_rows if kept is not None else 0, **outcomes}
    away["came"] = sum(away.values())
    return Counts(**{name: number - away.get(name, 0) for name, number in counts.model_dump().items()})


def _fewer(reasons: Mapping[str, int], lost: pa.Table | None) -> dict[str, int]:
    left = Counter(reasons)
    left.subtract(Counter(lost["code"].to_pylist() if lost is not None else ()))
    return {code: number for code, number in sorted(left.items()) if number}
