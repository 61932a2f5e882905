"""00_raw."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from tasks.job import ONCE, SHARD, Job, dataset_of, named_failures
from vlmdata.checkpoint import Shard
from vlmdata.config import BuildConfig
from vlmdata.ingest import listing, shards


@task(**ONCE, name="list-source")
@named_failures
def list_source(config: BuildConfig) -> list[Shard]:
    """Find out what the source holds, and cut it into shards; refuses a bad source before anything is written."""
    return listing.list_source(dataset_of(config), config)


@task(**ONCE, name="find-ingested")
@named_failures
def find_ingested(listing: Sequence[Shard], job: Job) -> list[Shard]:
    """The shards that were read before: of a long list most, on most days."""
    return shards.find_ingested(job.dataset, listing, job.config)


@task(**SHARD, name="ingest-shard", task_run_name="ingest-{shard.name}")
@named_failures
def ingest_shard(shard: Shard, job: Job) -> Shard:
    """Read a shard's pictures and captions."""
    return shards.ingest_shard(job.dataset, shard, job.config)
