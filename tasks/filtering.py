"""01_filtered."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from tasks.job import ONCE, SHARD, Job, named_failures
from vlmdata.checkpoint import Shard
from vlmdata.filtering import close, duplicates, look
from vlmdata.filtering import shards as filtering
from vlmdata.filtering.pool import Standing, Terms
from vlmdata.measure import facts
from vlmdata.opt_out import OptOut
from vlmdata.versions.version import version_under


@task(**SHARD, name="measure-shard", task_run_name="measure-{shard.name}")
@named_failures
def measure_shard(shard: Shard, job: Job) -> Shard:
    """Decode and hash a shard's pictures."""
    return facts.measure_shard(job.dataset, shard, job.config.filter)


@task(**ONCE, name="find-close")
@named_failures
def find_close(shards: Sequence[Shard], job: Job) -> list[Shard]:
    """Seek pictures that are close to others, which must be looked at before one of them goes."""
    return close.find_close(job.dataset, shards, terms := Terms.of(job.config), _standing(job, terms))


@task(**SHARD, name="look-at-shard", task_run_name="look-at-{shard.name}")
@named_failures
def look_at_shard(shard: Shard, job: Job) -> Shard:
    """Embed those of a shard's pictures that are close to others."""
    wanted = look.Look.of(job.config)
    return look.look_at(job.dataset, shard, wanted) if wanted else shard


@task(**ONCE, name="find-duplicates")
@named_failures
def find_duplicates(shards: Sequence[Shard], job: Job) -> list[Shard]:
    """Seek near-duplicates over all shards, and against what is published."""
    return duplicates.find_duplicates(job.dataset, shards, terms := Terms.of(job.config), _standing(job, terms))


def _standing(job: Job, terms: Terms) -> Standing | None:
    before = version_under(job.dataset, terms.digest, job.run.base)
    return before.standing if before else None


@task(**SHARD, name="filter-shard", task_run_name="filter-{shard.name}")
@named_failures
def filter_shard(shard: Shard, job: Job) -> Shard:
    """Decide what of a shard stays."""
    config = job.config
    return filtering.filter_shard(job.dataset, shard, config.filter, config.dedup, OptOut.read(config.opt_out))
