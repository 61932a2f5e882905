"""03_quality_checked."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task
from prefect.artifacts import create_table_artifact

from tasks.job import ONCE, SHARD, Job, artifact_key, as_words, named_failures
from vlmdata.checkpoint import Shard
from vlmdata.quality import bands, scores
from vlmdata.quality.pairs import measure_pairs


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


@task(**ONCE, name="measure-languages")
@named_failures
def report_languages(job: Job, shards: Sequence[Shard]) -> None:
    """Say how well captions match for each pair of languages, beside the run and as a table."""
    rows = measure_pairs(job.dataset, shards, job.config.quality).to_pylist()
    job.run.record("languages", {"pairs": rows})
    create_table_artifact(
        key=artifact_key(job, "languages"),
        table=as_words(rows, "language", "source_language", "model"),
        description="Scores, by pair of languages",
    )
