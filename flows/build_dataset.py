"""The whole of it: a source becomes a training set, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prefect import State, flow
from prefect.states import Completed, Failed

from flows.engine import Engine, once
from tasks.captioning import caption_held, caption_shard, recount_captions
from tasks.export import export_shard, plan_export, select_samples
from tasks.filtering import filter_shard, find_close, find_duplicates, look_at_shard, measure_shard
from tasks.health import report_health
from tasks.ingest import find_ingested, ingest_shard, list_source
from tasks.job import Job
from tasks.quality import judge_shard, report_languages, score_shard
from tasks.report import write_report
from tasks.stages import check, check_figures, check_retrieval, close_stage, finish_run, start_run, stop_run
from vlmdata.captioning.again import times_again
from vlmdata.checkpoint import Shard
from vlmdata.config import BuildConfig
from vlmdata.errors import GateFailed, VlmdataError
from vlmdata.export.selection.select import selects
from vlmdata.filtering.look import to_look_at
from vlmdata.layout import Stage, Step
from vlmdata.preflight import load_ahead
from vlmdata.runs import IN_PART, StageReport


@flow(name="build-dataset", flow_run_name="build-{config.dataset}")
def build_dataset(config: BuildConfig, to: Stage = Stage.FINAL) -> Any:
    """Build a training set; what is done already is not done again.

    Ends `Completed`; `CompletedInPart` if a rerun may mend what failed; or
    failed with the name of the reason: ConfigError, SourceError, StoreError,
    GateFailed, NeedsCleaning, BuildIncomplete.

    Args:
        config: The build: source, store, rules, models, export.
        to: The last stage to make.
    """
    try:
        once(check, config, to)
        listing = once(list_source, config)
        return ended(build(once(start_run, config), listing, to))
    except VlmdataError as error:
        return Failed(name=type(error).__name__, message=str(error))


def ended(told: dict[str, Any]) -> State[Any]:
    """The state that a run ends in."""
    name = "CompletedInPart" if told["outcome"] == IN_PART else "Completed"
    return Completed(name=name, message=told["message"], data=told)


def build(job: Job, listing: list[Shard], to: Stage) -> dict[str, Any]:
    """Take a listing through the stages; returns the run as `vlmdata status` tells it.

    Raises:
        VlmdataError: why it ended early; the run's record says so, too.
    """
    shards, reports = listing, dict[Stage, StageReport]()
    load_ahead(job.config, job.run, listing, to)
    try:
        with Engine(job) as engine:
            for stage, make in STAGES.items():
                shards = make(engine, shards)
                reports[stage] = once(close_stage, job, stage, shards)
                if stage is Stage.CHECKED:
                    once(report_languages, job, shards)
                if stage == to:
                    break
            engine.require_all("the run is finished")
        if to == Stage.CHECKED:
            once(check_figures, job)
        warned = once(report_health, job)
        told: dict[str, Any] = once(finish_run, job, _recounted(job, reports), listing, warned)
        return {**told, "report": once(write_report, job)}
    except VlmdataError as error:
        if isinstance(error, GateFailed):
            # What is to be cleaned is looked at first.
            once(report_health, job)
        stop_run(job, error)
        if isinstance(error, GateFailed):
            once(write_report, job)
        raise


def _recounted(job: Job, reports: dict[Stage, StageReport]) -> list[StageReport]:
    """Stage 03 has asked for captions, too: those that failed in a way that a rerun may mend keep the run open."""
    checked = reports.get(Stage.CHECKED)
    if checked:
        captioned = once(recount_captions, job, reports[Stage.CAPTIONED], checked.shards)
        reports = {**reports, Stage.CAPTIONED: captioned}
    return list(reports.values())


def ingest(engine: Engine, listing: Sequence[Shard]) -> list[Shard]:
    """00_raw: original bytes, captions, provenance."""
    return engine.each(ingest_shard, listing, Step.RAW, known=once(find_ingested, listing, engine.job))


def filter_(engine: Engine, raw: Sequence[Shard]) -> list[Shard]:
    """01_filtered: measured once; rules and near-duplicates decided over all shards."""
    measured = engine.each(measure_shard, raw, Step.FACTS)
    engine.require_all("near-duplicates are sought")
    if engine.job.config.dedup.confirm is not None:
        measured = _looked_at(engine, measured)
    return engine.each(filter_shard, once(find_duplicates, measured, engine.job), Step.FILTERED)


def _looked_at(engine: Engine, measured: Sequence[Shard]) -> list[Shard]:
    close = once(find_close, measured, engine.job)
    known = [shard for shard in close if not to_look_at(engine.job.dataset, shard)]
    looked = engine.each(look_at_shard, close, Step.LOOKS, known=known)
    engine.require_all("near-duplicates are confirmed")
    return looked


def caption(engine: Engine, filtered: Sequence[Shard]) -> list[Shard]:
    """02_captioned: what the source lacks, from an API."""
    return engine.each(caption_shard, filtered, Step.CAPTIONED)


def check_quality(engine: Engine, captioned: Sequence[Shard]) -> list[Shard]:
    """03_quality_checked: embedded and scored once; bands decided from the scores; held samples come back."""
    judged = _judged(engine, captioned)
    for take in range(1, times_again(engine.job.config.caption) + 1):
        again = engine.each(caption_held, judged, Step.CAPTIONED, take=take)
        if again == judged:
            break
        judged = _judged(engine, again)
    return judged


def _judged(engine: Engine, captioned: Sequence[Shard]) -> list[Shard]:
    return engine.each(judge_shard, engine.each(score_shard, captioned, Step.SCORES), Step.CHECKED)


def export(engine: Engine, checked: Sequence[Shard]) -> list[Shard]:
    """04_final: files of the export's own sizes, over all shards."""
    engine.require_all("the export is cut")
    once(check_retrieval, engine.job, checked)
    selected = once(select_samples, checked, engine.job) if selects(engine.job.config.export) else checked
    return engine.each(export_shard, once(plan_export, selected, engine.job), Step.FINAL)


STAGES: dict[Stage, Callable[[Engine, Sequence[Shard]], list[Shard]]] = {
    Stage.RAW: ingest,
    Stage.FILTERED: filter_,
    Stage.CAPTIONED: caption,
    Stage.CHECKED: check_quality,
    Stage.FINAL: export,
}
