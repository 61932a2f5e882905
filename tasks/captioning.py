"""02_captioned."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from tasks.job import ONCE, SHARD, Job, named_failures
from tasks.pace import shared_limits
from vlmdata.captioning import again
from vlmdata.captioning import shards as captioning
from vlmdata.captioning.endings import Waits
from vlmdata.checkpoint import Shard
from vlmdata.runs import StageReport


@task(**SHARD, name="caption-shard", task_run_name="caption-{shard.name}")
@named_failures
def caption_shard(shard: Shard, job: Job) -> Shard:
    """Ask the captioner for what a shard lacks; retries of requests are counted there, not here."""
    return captioning.caption_shard(job.dataset, shard, job.config.caption, Waits(shared=shared_limits(job)))


@task(**SHARD, name="caption-held", task_run_name="caption-held-{shard.name}")
@named_failures
def caption_held(shard: Shard, job: Job, take: int) -> Shard:
    """Ask once more for what is held between the bands."""
    return again.caption_held(job.dataset, shard, job.config.caption, take, Waits(shared=shared_limits(job)))


@task(**ONCE, name="recount-captions")
@named_failures
def recount_captions(job: Job, captioned: StageReport, judged: Sequence[Shard]) -> StageReport:
    """Stage 02's accounts once its held samples have come back."""
    return again.recounted(job.dataset, captioned, judged)
