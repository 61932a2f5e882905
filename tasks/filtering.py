"""01_filtered."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from tasks.job import ONCE, SHARD, Job, named_failures
from vlmdata.checkpoint import Shard
from vlmdata.filtering import duplicates
from vlmdata.filtering import shards as filtering
from vlmdata.measure import facts
from vlmdata.opt_out import OptOut
from vlmdata.versions.version import version_under


@task(**SHARD, name="measure-shard", task_run_name="measure-{shard.name}")
@named_failures
def measure_shard(shard: Shard, job: Job) -> Shard:
    """Decode and hash a shard's pictures."""
    return facts.measure_shard(job.dataset, shard, job.config.filter)


@task(**ONCE, name="find-duplicates")
@named_failures
def find_duplicates(shards: Sequence[Shard], job: Job) -> list[Shard]:
    """Seek near-duplicates over all shards, and against what is published."""
    how = job.config.filter, job.config.dedup, OptOut.read(job.config.opt_out)
    before = version_under(job.dataset, duplicates.rules_digest(*how), job.run.base)
    return duplicates.find_duplicates(job.dataset, shards, *how, before.standing if before else None)


@task(**SHARD, name="filter-shard", task_run_name="filter-{shard.name}")
@named_failures
def filter_shard(shard: Shard, job: Job) -> Shard:
    """Decide what of a shard stays."""
    config = job.config
    return filtering.filter_shard(job.dataset, shard, config.filter, config.dedup, OptOut.read(config.opt_out))
