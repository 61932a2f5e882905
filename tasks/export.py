"""04_final."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from tasks.job import ONCE, SHARD, Job, named_failures
from vlmdata.checkpoint import Shard
from vlmdata.export import plan
from vlmdata.export import shards as export
from vlmdata.export.selection.select import select
from vlmdata.versions.version import read_version, selections


@task(**ONCE, name="select-samples")
@named_failures
def select_samples(shards: Sequence[Shard], job: Job) -> list[Shard]:
    """Leave out who is of an evaluation set or more than was asked for, and give everybody a split."""
    return select(job.dataset, shards, job.config, selections(job.dataset, job.run.base))


@task(**ONCE, name="plan-export")
@named_failures
def plan_export(shards: Sequence[Shard], job: Job) -> list[Shard]:
    """Cut what is kept into files of the export's own sizes; those of the version before may stay."""
    base = job.run.base if job.config.export.increments else None
    before = read_version(job.dataset, base).exported if base else []
    return plan.plan_export(job.dataset, list(shards), job.config.export, before)


@task(**SHARD, name="export-shard", task_run_name="export-{shard.name}")
@named_failures
def export_shard(shard: Shard, job: Job) -> Shard:
    """Write one file a format, and read it back."""
    return export.export_shard(job.dataset, shard, job.config.export)
