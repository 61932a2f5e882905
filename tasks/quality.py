"""03_quality_checked."""

from __future__ import annotations

from prefect import task

from tasks.job import SHARD, Job, named_failures
from vlmdata.checkpoint import Shard
from vlmdata.quality import bands, scores


@task(**SHARD, name="score-shard", task_run_name="score-{shard.name}")
@named_failures
def score_shard(shard: Shard, job: Job) -> Shard:
    """Embed a shard's pictures and captions."""
    return scores.score_shard(job.dataset, shard, job.config.quality)


@task(**SHARD, name="judge-shard", task_run_name="judge-{shard.name}")
@named_failures
def judge_shard(shard: Shard, job: Job) -> Shard:
    """Put a shard's captions into their bands."""
    return bands.judge_shard(job.dataset, shard, job.config.quality)
