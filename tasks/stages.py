"""What begins and ends a run and each of its stages: records, gates, artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from expectations.docs import write_docs
from expectations.gate import check_gates, check_run, check_stage
from expectations.verdict import recorded
from tasks import pace
from tasks.job import ONCE, Job, address_of, artifact_key, as_words, dataset_of, named_failures, pages_url
from vlmdata import runs
from vlmdata.checkpoint import Shard, encode_parquet
from vlmdata.config import BuildConfig
from vlmdata.errors import BuildIncomplete, GateFailed, VlmdataError
from vlmdata.export.card_facts import card_facts
from vlmdata.export.finish import finish_export
from vlmdata.export.names import MANIFEST
from vlmdata.funnel import as_markdown
from vlmdata.health.health import FIGURES
from vlmdata.health.measure import measure_health
from vlmdata.layout import Stage, Step, export_prefix
from vlmdata.preflight import fetch_models, preflight
from vlmdata.quality.retrieval import RANKS_FILE, TOO_FEW_TO_TELL, measure_retrieval
from vlmdata.quality.worst_page import worst_page
from vlmdata.status import describe_run, if_unchanged
from vlmdata.versions.publish import publish
from vlmdata.versions.version import newest_number


@task(**ONCE, name="check-config")
@named_failures
def check(config: BuildConfig, to: Stage) -> None:
    """Refuse what cannot work before anything is written."""
    pages_url()
    preflight(config)
    check_gates(config.gates, FIGURES)
    fetch_models(config, to)


@task(**ONCE, name="start-run")
@named_failures
def start_run(config: BuildConfig) -> Job:
    """Claim the next run number, and set what its captions' pace is."""
    dataset = dataset_of(config)
    job = Job(config, runs.start_run(dataset, config, newest_number(dataset)).number)
    if config.caption.base_url is not None and config.caption.policy != "none":
        pace.prepare(job)
    return job


@task(**ONCE, name="find-unchanged")
@named_failures
def find_unchanged(config: BuildConfig, listing: Sequence[Shard]) -> dict[str, Any] | None:
    """The newest run, if it made all of this already: the same source, the same settings, and its export is there."""
    return if_unchanged(dataset_of(config), config, listing)


@task(**ONCE, name="close-stage", task_run_name="close-{stage.value}")
@named_failures
def close_stage(job: Job, stage: Stage, shards: Sequence[Shard]) -> runs.StageReport:
    """Record a stage's accounts, show them, and let its suite judge it."""
    report = runs.report(job.dataset, stage, shards)
    job.run.stage_done(report)
    _show(job, report)
    try:
        _warn(check_stage(job.dataset, shards, stage, job.config, job.run))
    except GateFailed as error:
        if report.open and not report.samples.kept:
            what = ", ".join(f"{code} {number}" for code, number in report.reasons.items())
            raise BuildIncomplete(f"{stage}: no sample is through yet ({what}); {_mend(job, [report])}") from error
        raise GateFailed(f"{error}{_why_nothing_is_left(report)}") from error
    return report


@task(**ONCE, name="check-run")
@named_failures
def check_figures(job: Job) -> None:
    """Judge the figures of a run that ends before anything would be exported."""
    _warn(check_run(job.run, job.config, measure_health(job.run), None))


def _warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        get_run_logger().warning(sentence)


def _why_nothing_is_left(report: runs.StageReport) -> str:
    if report.samples.kept or not report.reasons:
        return ""
    return f"; no sample is left: {', '.join(f'{code} {number}' for code, number in report.reasons.items())}"


@task(**ONCE, name="check-retrieval")
@named_failures
def check_retrieval(job: Job, shards: Sequence[Shard]) -> None:
    """Let images look for their captions, show how that went, and stop a set that is to be cleaned."""
    found = measure_retrieval(job.dataset, shards, job.config.quality)
    job.run.record("retrieval", found.record())
    job.run.attach(RANKS_FILE, encode_parquet(found.drawn))
    page = job.run.attach("retrieval.html", worst_page(job.dataset, shards, found))
    told = f"{found.sentence}\n\n[The worst pairs]({address_of(page, job.config.store)}): `{page}`"
    create_markdown_artifact(key=artifact_key(job, "retrieval"), markdown=told, description="The retrieval check")
    rows = [
        {"by": by, "name": str(row["name"]), "images": row["images"], "missed": f"{row['miss_rate']:.1%}"}
        for by, group in found.groups.items()
        for row in group[:10]
    ]
    create_table_artifact(
        key=artifact_key(job, "retrieval-worst"),
        table=as_words(rows, "name"),
        description="Where images miss their captions",
    )
    if found.verdict != "passed":
        get_run_logger().warning(found.sentence)
    try:
        if job.config.gates.ask_of_figures:
            _warn(check_run(job.run, job.config, measure_health(job.run), found))
    finally:
        found.require_clean()


@task(**ONCE, name="finish-run")
@named_failures
def finish_run(
    job: Job, reports: Sequence[runs.StageReport], listing: Sequence[Shard], warned: Sequence[str]
) -> dict[str, Any]:
    """Publish the export as a version, and record how the run ended: the funnel as `vlmdata status` prints it."""
    last, still_open = reports[-1], sum(report.open for report in reports)
    facts: dict[str, Any] = {}
    if last.stage is Stage.FINAL:
        facts["export"] = finish_export(job.dataset, last.shards, job.config.export, card_facts(job.run, job.config))
        checked = next(report.shards for report in reports if report.stage is Stage.CHECKED)
        facts["version"] = publish(job.run, job.run.base, checked, last.shards, facts["export"]).number
    facts["warnings"] = [*_show_gates(job), *warned, *_noticed(job, reports)]
    what = "1 failure" if still_open == 1 else f"{still_open:,} failures"
    message = f"{what} may be mended: {_mend(job, reports)}" if still_open else ""
    if not still_open:
        facts["fingerprint"] = runs.fingerprint(job.dataset, job.config, listing, last.stage)
        if last.stage is Stage.FINAL:
            facts["whole"] = _whole(job, last)
    job.run.finish(runs.IN_PART if still_open else runs.COMPLETED, message, to=last.stage.value, **facts)
    told = describe_run(job.run)
    if told["export"]:
        create_markdown_artifact(
            key=artifact_key(job, "export"), markdown=f"`{told['export']}`", description="The export"
        )
    create_markdown_artifact(key=artifact_key(job, "funnel"), markdown=as_markdown(told), description="The funnel")
    return told


def _noticed(job: Job, reports: Sequence[runs.StageReport]) -> list[str]:
    """What decisions over all shards noticed that people should know."""
    steps = {Stage.FILTERED: Step.DUPLICATES, Stage.FINAL: Step.SELECTED}
    shards = [(report.shards[0], steps[report.stage]) for report in reports if report.shards and report.stage in steps]
    found = [job.dataset.manifest(shard, step).facts for shard, step in shards if step in shard.manifests]
    retrieval = job.run.read("retrieval") or {}
    unsure = [retrieval["sentence"]] if retrieval.get("verdict") == TOO_FEW_TO_TELL else []
    return [*(sentence for facts in found for sentence in facts.get("warnings", ())), *unsure]


def _mend(job: Job, reports: Sequence[runs.StageReport]) -> str:
    """The command that does just what failed."""
    command = f"vlmdata retry --store {job.config.store} --dataset {job.config.dataset}"
    broke = any("caption_budget" in report.reasons for report in reports)
    limits = {"max_cost": job.config.caption.max_cost, "max_requests": job.config.caption.max_requests}
    more = [f" --set caption.{name}=…" for name, limit in limits.items() if limit is not None]
    return command + ("".join(more) + ", with more to spend" if broke else "")


def _whole(job: Job, final: runs.StageReport) -> str:
    """The object whose presence says that the export is whole."""
    made = [job.dataset.manifest(shard, Step.FINAL).facts for shard in final.shards]
    newest = max(made, key=lambda facts: int(facts["increment"]))
    return f"{export_prefix(job.config.dataset, newest['export'])}/{MANIFEST}"


def stop_run(job: Job, error: VlmdataError) -> None:
    """Record why a run ended early."""
    _show_gates(job)
    job.run.finish(runs.STOPPED, str(error), error=type(error).__name__)


def _show_gates(job: Job) -> list[str]:
    """Put the page of all rules beside the run, and name it in Prefect; returns what did not hold."""
    page = write_docs(job.run)
    if page:
        told = f"[Every rule, what it asked and what it saw]({address_of(page, job.config.store)}): `{page}`"
        create_markdown_artifact(key=artifact_key(job, "gates"), markdown=told, description="The gates")
    return [verdict.sentence for verdict in recorded(job.run) if not verdict.held]


def _show(job: Job, report: runs.StageReport) -> None:
    rows = [{"what": "samples", **report.samples.model_dump(by_alias=True)}]
    rows.append({"what": "captions", **report.captions.model_dump(by_alias=True)})
    create_table_artifact(key=artifact_key(job, report.stage), table=rows, description=f"Accounts of {report.stage}")
    reasons = [{"code": code, "samples": number} for code, number in report.reasons.items()]
    if reasons:
        create_table_artifact(
            key=artifact_key(job, f"{report.stage}-reasons"), table=reasons, description="Why not kept"
        )
