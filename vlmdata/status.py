"""The funnel of a dataset: what came into each stage, what became of it, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmdata import layout
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.export.finish import locate_export
from vlmdata.layout import GATES_PAGE, REPORT, Stage
from vlmdata.runs import Run, StageReport, existing_run, fingerprint, finished_alike


def status(dataset: Dataset) -> dict[str, Any]:
    """The newest run as one object: `{"dataset", "run", "outcome", "stages": {stage: {…}}}`.

    Every stage has a row; one that was not reached has zeros. `mean_score` is
    the mean over samples of their best CLIPScore: of what a stage kept, as far
    as it was scored later; null until then. 02_captioned has `spent`, too:
    `{"requests", "input_tokens", "output_tokens", "cost"}` of the dataset's
    account over all runs, in dollars; `cost` is null where no price is known.
    `languages` are rows of `quality.pairs.PAIRS`: how well captions match, for
    each pair of languages. `retrieval` is the check's `{"verdict", "miss_rate", "sentence"}`, null
    before it. `gates` is where the page of all rules lies, `report` where the run's report does; `warnings` are
    sentences: rules that did not hold, and what drifted. `version` is the number that
    the run was published under; null: it was not.
    """
    return describe_run(existing_run(dataset))


def if_unchanged(
    dataset: Dataset, config: BuildConfig, listing: Sequence[Shard], to: Stage = Stage.FINAL
) -> dict[str, Any] | None:
    """The newest run, marked `"unchanged": True`, if it made all that a build of this listing would; else None."""
    if to is Stage.FINAL and config.export.path is not None:
        # The copy may be gone, or another's.
        return None
    done = finished_alike(dataset, fingerprint(dataset, config, listing, to), to)
    return {**describe_run(done), "unchanged": True} if done else None


def describe_run(run: Run) -> dict[str, Any]:
    """One run's funnel; see `status`."""
    from vlmdata.captioning.again import recounted

    reports = {stage: run.stage(stage) or StageReport(stage) for stage in Stage}
    reports[Stage.CAPTIONED] = recounted(run.dataset, reports[Stage.CAPTIONED], reports[Stage.CHECKED].shards)
    stages = {stage.value: _row(reports, stage) for stage in Stage}
    stages[Stage.CAPTIONED.value]["spent"] = _spent(run)
    end = run.read("end") or {}
    place = end.get("export")
    return {
        "dataset": run.dataset.name,
        "run": run.number,
        "outcome": end.get("outcome", "under way or killed"),
        "message": end.get("message"),
        "export": locate_export(run.dataset.store, place) if place else None,
        "version": end.get("version"),
        "stages": stages,
        "languages": (run.read("languages") or {}).get("pairs", []),
        "retrieval": _retrieval(run),
        "gates": _place(run, GATES_PAGE),
        "report": _place(run, REPORT),
        "warnings": list(end.get("warnings", ())),
    }


def _place(run: Run, name: str) -> str | None:
    """Where people find a file beside the run's records, if it is there."""
    path = layout.run_file(run.dataset.name, run.number, name)
    return run.dataset.store.locate(path) if run.dataset.store.exists(path) else None


def _retrieval(run: Run) -> dict[str, Any] | None:
    found = run.read("retrieval")
    return None if found is None else {name: found[name] for name in ("verdict", "miss_rate", "sentence")}


def _row(reports: dict[Stage, StageReport], stage: Stage) -> dict[str, Any]:
    report = reports[stage]
    return {
        **report.samples.model_dump(by_alias=True),
        "rejection_rate": report.rejection_rate,
        "mean_score": _mean_score(reports, stage),
        "reasons": report.reasons,
        "captions": {**report.captions.model_dump(by_alias=True), "reasons": report.caption_reasons},
    }


def _mean_score(reports: dict[Stage, StageReport], stage: Stage) -> float | None:
    checked = reports[Stage.CHECKED]
    total, number = checked.scored if stage < Stage.CHECKED else (checked.score_sum, checked.score_count)
    if stage is Stage.FINAL:
        final = reports[stage]
        total, number = final.score_sum, final.score_count
    return total / number if number else None


def _spent(run: Run) -> dict[str, Any]:
    """What captions took so far: as a budget counts it, so with what a crash left open."""
    from vlmdata.captioning.journal.log import Log
    from vlmdata.captioning.journal.records import NANO

    account = Log(run.dataset.store, run.dataset.name).book.account
    asked = (run.read("start") or {}).get("config", {}).get("caption", {})
    priced = account.spent > 0 or asked.get("model") in asked.get("prices", {})
    return {
        "requests": account.requests,
        "input_tokens": account.input_tokens,
        "output_tokens": account.output_tokens,
        "cost": account.spent / NANO if priced else None,
    }
