"""One sample's whole story, stage by stage, read from the checkpoints of the newest run."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.errors import ConfigError
from vlmdata.layout import Stage, Step
from vlmdata.runs import Run, existing_run

_LEFT_OUT = {"id", "key", "retryable"}


def explain(dataset: Dataset, sample: str) -> dict[str, Any]:
    """What became of a sample: `{"id", "key", "run", "stages": [{"stage", "outcome", "facts"}]}`.

    Args:
        dataset: The dataset.
        sample: An id, the beginning of one (8 digits or more), or the key the source has for it.

    Raises:
        ConfigError: there is no such sample, or several.
    """
    run = existing_run(dataset)
    found = _find(dataset, run, sample)
    shard_name, row = found
    stages = [_ingested(dataset, run, shard_name, row)]
    for stage in (Stage.FILTERED, Stage.CAPTIONED, Stage.CHECKED):
        shard = _shard(run, stage, shard_name)
        if shard is None or stages[-1]["outcome"] not in {"kept"}:
            break
        stages.append(_decided(dataset, shard, stage, row["id"]))
        if stage is Stage.CAPTIONED:
            _name_questions(run, row["sha256"], stages[-1]["facts"].get("asked", []))
    if stages[-1]["stage"] == Stage.CHECKED and stages[-1]["outcome"] == "kept":
        stages += _exported(dataset, run, row["id"])
    return {"id": row["id"], "key": row["key"], "run": run.number, "stages": stages}


def _find(dataset: Dataset, run: Run, sample: str) -> tuple[str, dict[str, Any]]:
    """The raw shard that holds a sample, and its row there."""
    report = run.stage(Stage.RAW)
    found: list[tuple[str, dict[str, Any]]] = []
    for shard in report.shards if report else ():
        for table in ("samples", "rejects"):
            rows = dataset.read(shard, Step.RAW, table)
            match = pc.or_(pc.equal(rows["id"], sample), pc.equal(rows["key"], sample))
            if len(sample) >= 8:
                match = pc.or_(match, pc.starts_with(rows["id"], sample))
            found += [(shard.name, row) for row in rows.filter(match).to_pylist()]
    if not found:
        raise ConfigError(f"sample {sample!r}: not in run {run.number} of {dataset.name}; give an id or a source key")
    if len({row["id"] for _, row in found}) > 1:
        several = ", ".join(f"{row['id']} ({row['key']})" for _, row in found[:5])
        raise ConfigError(f"sample {sample!r}: {len(found)} samples answer to it; give a whole id: {several}")
    return found[0]


def _shard(run: Run, stage: Stage, name: str) -> Shard | None:
    """The shard as a stage left it; stage 03 hands on what was captioned anew for it."""
    later = run.stage(Stage.CHECKED) if stage is Stage.CAPTIONED else None
    report = later or run.stage(stage)
    return next((shard for shard in report.shards if shard.name == name), None) if report else None


def _ingested(dataset: Dataset, run: Run, shard_name: str, row: dict[str, Any]) -> dict[str, Any]:
    shard = _shard(run, Stage.RAW, shard_name)
    facts = {name: value for name, value in row.items() if name not in _LEFT_OUT and value is not None}
    if shard and "fetches" in dataset.manifest(shard, Step.RAW).tables:
        told = {"id", "url", "outcome", "code", "detail", "retryable", "bytes", "sha256"}
        fetched = _first(_rows(dataset, shard, Step.RAW, "fetches", row["id"]))
        facts["fetched"] = {name: value for name, value in fetched.items() if name not in told}
    for name, table in (("captions", "captions"), ("captions not kept", "caption_rejects")):
        captions = _rows(dataset, shard, Step.RAW, table, row["id"]) if shard else []
        facts[name] = [_short(caption) for caption in captions]
    return _told(Stage.RAW, facts.pop("outcome", "kept"), facts)


def _decided(dataset: Dataset, shard: Shard, stage: Stage, sample: str) -> dict[str, Any]:
    """A deciding stage: the measurements or the reason, then every caption with its own."""
    step = Step(stage.value)
    facts: dict[str, Any] = {}
    if stage is Stage.FILTERED:
        facts.update(_first(_rows(dataset, shard, Step.FACTS, "facts", sample)))
        if facts.get("phash") is not None:
            facts["phash"] = f"{facts['phash']:016x}"
    if stage is Stage.CAPTIONED:
        facts.update(asked=_rows(dataset, shard, step, "attempts", sample))
    if stage is Stage.CHECKED:
        facts.update(scores=_scores(dataset, shard, sample))
    rejected = _first(_rows(dataset, shard, step, "rejects", sample))
    facts.update({"reason": rejected} if rejected else {})
    facts["captions"] = [_short(row) for row in _rows(dataset, shard, step, "captions", sample)]
    facts["captions not kept"] = [_short(row) for row in _rows(dataset, shard, step, "caption_rejects", sample)]
    return _told(stage, rejected.pop("outcome", "kept"), facts)


def _name_questions(run: Run, content: str, asked: list[dict[str, Any]]) -> None:
    """Put what was asked in the place of the journal's name for it, as far as this run's config gives that name."""
    questions = _questions(run, content) if asked else {}
    asked[:] = [{**questions.get(row["key"], {}), **_short(row)} for row in asked]


def _questions(run: Run, content: str) -> dict[str, dict[str, Any]]:
    """By the journal's name: model and prompt with its version, and for which time a held sample came back."""
    from vlmdata.captioning.again import times_again
    from vlmdata.captioning.questions import Asker
    from vlmdata.runs import config_of_newest

    try:
        config = config_of_newest(run.dataset).caption
        askers = [Asker.of(config, take) for take in range(times_again(config) + 1)]
    except ConfigError:
        # The prompt's file is gone, or another version wrote the config: the answers still stand.
        return {}
    told = [{"model": config.model, "prompt": asker.prompt.identity, "again": asker.take or None} for asker in askers]
    keys = [asker.keys([content])[0] for asker in askers]
    return {key: _short(question) for key, question in zip(keys, told, strict=True)}


def _scores(dataset: Dataset, shard: Shard, sample: str) -> list[dict[str, Any]]:
    """Every caption's score with what it was taken with."""
    texts = {row["caption_id"]: row["text"] for row in _rows(dataset, shard, Step.CAPTIONED, "captions", sample)}
    rows = _rows(dataset, shard, Step.SCORES, "scores", sample)
    return [{"text": texts.get(row["caption_id"]), **_short(row)} for row in rows]


def _exported(dataset: Dataset, run: Run, sample: str) -> list[dict[str, Any]]:
    report = run.stage(Stage.FINAL)
    for shard in report.shards if report else ():
        for outcome, table in (("kept", "samples"), ("failed", "rejects")):
            rows = _rows(dataset, shard, Step.FINAL, table, sample)
            if rows:
                more = {"captions not kept": "caption_rejects", "places": "places"}
                facts = {
                    what: [_short(row) for row in _rows(dataset, shard, Step.FINAL, at, sample)]
                    for what, at in more.items()
                }
                return [_told(Stage.FINAL, outcome, {**_first(rows), **facts})]
    return []


def _told(stage: Stage, outcome: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {"stage": stage.value, "outcome": outcome, "facts": {k: v for k, v in facts.items() if v not in (None, [])}}


def _rows(dataset: Dataset, shard: Shard, step: Step, table: str, sample: str) -> list[dict[str, Any]]:
    """The sample's rows of one table; none if the step was not reached or has no such table."""
    if step.value not in shard.manifests or table not in dataset.manifest(shard, step).tables:
        return []
    rows: pa.Table = dataset.read(shard, step, table)
    found: list[dict[str, Any]] = rows.filter(pc.equal(rows["id"], sample)).to_pylist()
    return found


def _first(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return _short(rows[0]) if rows else {}


def _short(row: dict[str, Any]) -> dict[str, Any]:
    told = {name: value for name, value in row.items() if name not in _LEFT_OUT | {"caption_id"}}
    # A score that is not a number is none, and JSON has no word for it, nor for a moment.
    return {name: _plain(value) for name, value in told.items() if value is not None and value == value}


def _plain(value: Any) -> Any:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else value
