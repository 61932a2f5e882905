"""One sample's whole story, stage by stage: from its source to the file and offset that it is exported to."""

from __future__ import annotations

from typing import Any

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.errors import ConfigError
from vlmdata.layout import Stage, Step
from vlmdata.lineage import judged
from vlmdata.lineage.appearances import appearances
from vlmdata.lineage.asked import asked
from vlmdata.lineage.exported import exported
from vlmdata.lineage.lookup import Found, find, rows
from vlmdata.lineage.plain import plain
from vlmdata.lineage.rules import rules_asked
from vlmdata.lineage.view import View
from vlmdata.runs import existing_run
from vlmdata.versions.version import numbers

Row = dict[str, Any]


def explain(dataset: Dataset, sample: str, version: int | None = None) -> dict[str, Any]:
    """What became of a sample, as one object; docs/lineage.md tells its keys.

    `{"id", "key", "run", "version", "note", "versions": [{"from", "to", "outcome", "stage", "code"}],
    "stages": [{"stage", "outcome", "facts", "rules": [{"rule", "outcome", "value", "bound"}]}]}`

    Args:
        dataset: The dataset.
        sample: An id, the beginning of one (8 digits or more), the key the source has for it, or its address.
        version: As that version has it; null: as the newest run has it, else the newest version that does.

    Raises:
        ConfigError: there is no such sample, or several, or no such version.
    """
    run = existing_run(dataset)
    asked_for = View.of_run(run) if version is None else View.of_version(dataset, version)
    view, found = _found(dataset, asked_for, sample)
    note = None if view is asked_for else f"{asked_for.name} does not have it any more; this is {view.name}"
    published = view.published
    return {
        "id": found.row["id"],
        "key": found.row["key"],
        "run": view.run.number,
        "version": published.number if published else None,
        "note": note,
        "versions": appearances(dataset, found.row["id"], found.shard.name),
        "stages": _stages(view, found),
    }


def _found(dataset: Dataset, asked_for: View, sample: str) -> tuple[View, Found]:
    """Where it is asked for; if nobody asks for a version, in the newest one that has it."""
    here = find(asked_for, sample)
    if here:
        return asked_for, here
    for number in reversed(numbers(dataset)):
        view = View.of_version(dataset, number)
        found = find(view, sample)
        if found and asked_for.version:
            has = appearances(dataset, found.row["id"], found.shard.name)
            spans = " and ".join(_span(one) for one in has)
            raise ConfigError(f"sample {sample!r}: not in {asked_for.name} of {dataset.name}; it is in {spans}")
        if found:
            return view, found
    raise ConfigError(
        f"sample {sample!r}: not in {asked_for.name} of {dataset.name}; give an id or a source key, or its address"
    )


def _span(one: Row) -> str:
    return f"version {one['from']}" if one["from"] == one["to"] else f"versions {one['from']} to {one['to']}"


def _stages(view: View, found: Found) -> list[Row]:
    stages = [_ingested(view, found)]
    for stage, tell in ((Stage.FILTERED, _filtered), (Stage.CAPTIONED, _captioned), (Stage.CHECKED, _checked)):
        shard = view.shard(stage, found.shard.name)
        if shard is None or stages[-1]["outcome"] != "kept":
            return stages
        stages.append(tell(view, shard, found.row))
    if stages[-1]["outcome"] == "kept":
        told = exported(view, found.row["id"], found.row["key"])
        stages += [_told(Stage.FINAL, *told)] if told else []
    return stages


def _ingested(view: View, found: Found) -> Row:
    row, shard = found.row, found.shard
    facts = plain(row, {"id", "key", "retryable"})
    outcome = facts.pop("outcome", "kept")
    facts["shard"] = shard.name
    fetches = rows(view.dataset, shard, Step.RAW, "fetches", row["id"]).to_pylist()
    if fetches:
        told = {"id", "url", "outcome", "code", "detail", "retryable", "bytes", "sha256"}
        facts["fetched"] = plain(fetches[0], told)
    return _told(Stage.RAW, outcome, {**facts, **_captions(view, shard, Step.RAW, row["id"])})


def _filtered(view: View, shard: Shard, row: Row) -> Row:
    """What was measured, and every rule that was asked of it."""
    sample = row["id"]
    measured = rows(view.dataset, shard, Step.FACTS, "facts", sample)
    facts = plain(measured.to_pylist()[0]) if measured.num_rows else {}
    if "phash" in facts:
        facts["phash"] = f"{facts['phash']:016x}"
    reason = _reason(view, shard, Step.FILTERED, sample)
    kept = rows(view.dataset, shard, Step.FILTERED, "captions", sample).to_pylist()
    rules = rules_asked(view, shard, measured, kept, reason)
    return _decided(view, shard, Stage.FILTERED, sample, facts, reason, rules)


def _captioned(view: View, shard: Shard, row: Row) -> Row:
    """Who was asked for a caption, how often, and what it cost."""
    sample = row["id"]
    attempts = rows(view.dataset, shard, Step.CAPTIONED, "attempts", sample).to_pylist()
    facts = {"asked": asked(view, shard, row["sha256"], attempts)}
    reason = _reason(view, shard, Step.CAPTIONED, sample)
    return _decided(view, shard, Stage.CAPTIONED, sample, facts, reason)


def _checked(view: View, shard: Shard, row: Row) -> Row:
    """Scores, the bounds that they were held against, and the retrieval check."""
    dataset, sample = view.dataset, row["id"]
    captions = rows(dataset, shard, Step.CAPTIONED, "captions", sample).to_pylist()
    texts = {one["caption_id"]: one["text"] for one in captions}
    scored = rows(dataset, shard, Step.SCORES, "scores", sample).to_pylist()
    lost = rows(dataset, shard, Step.CHECKED, "caption_rejects", sample).to_pylist()
    reason = _reason(view, shard, Step.CHECKED, sample)
    kept = rows(dataset, shard, Step.CHECKED, "samples", sample).to_pylist()
    facts = {"scores": judged.scores(view, shard, scored, texts, lost), "retrieval": judged.rank(view, sample)}
    rules = judged.rules_asked(view, kept[0] if kept else {}, reason)
    return _decided(view, shard, Stage.CHECKED, sample, facts, reason, rules)


def _decided(
    view: View, shard: Shard, stage: Stage, sample: str, facts: Row, reason: Row, rules: list[Row] | None = None
) -> Row:
    facts = {**facts, "reason": plain(reason), **_captions(view, shard, Step(stage.value), sample)}
    outcome = facts["reason"].pop("outcome", "kept")
    return {**_told(stage, outcome, facts), "rules": rules or []}


def _reason(view: View, shard: Shard, step: Step, sample: str) -> Row:
    """The row of `schema.REJECTS` for which it stops there; empty if it goes on."""
    found: list[Row] = rows(view.dataset, shard, step, "rejects", sample).to_pylist()
    return found[0] if found else {}


def _captions(view: View, shard: Shard, step: Step, sample: str) -> Row:
    tables = {"captions": "captions", "captions not kept": "caption_rejects"}
    return {
        name: [plain(one) for one in rows(view.dataset, shard, step, table, sample).to_pylist()]
        for name, table in tables.items()
    }


def _told(stage: Stage, outcome: str, facts: Row) -> Row:
    said = {name: value for name, value in facts.items() if value not in (None, [], {})}
    return {"stage": stage.value, "outcome": outcome, "facts": said, "rules": []}
