"""02_captioned."""

from __future__ import annotations

from prefect import task

from tasks.job import SHARD, Job, named_failures
from vlmdata.captioning import shards as captioning
from vlmdata.checkpoint import Shard


@task(**SHARD, name="caption-shard", task_run_name="caption-{shard.name}")
@named_failures
def caption_shard(shard: Shard, job: Job) -> Shard:
    """Ask the captioner for what a shard lacks; retries of requests are counted there, not here."""
    return captioning.caption_shard(job.dataset, shard, job.config.caption)
