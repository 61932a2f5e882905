"""The health of what a run kept, compared with the run before it."""

from __future__ import annotations

from base64 import b64encode

from prefect import get_run_logger, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from tasks.job import ONCE, Job, artifact_key, as_words, named_failures
from vlmdata.health.drift import drift
from vlmdata.health.measure import measure_health
from vlmdata.health.render import as_markdown, as_rows, warnings
from vlmdata.health.saved import SCORES_PNG, health_path, previous, save


@task(**ONCE, name="measure-health")
@named_failures
def report_health(job: Job) -> list[str]:
    """Count what the run kept, write it beside the run, and say what moved since the last one."""
    health = measure_health(job.run)
    before = previous(job.run, health.stage)
    moved = drift(before, health) if before else []
    save(job.run, health)
    create_markdown_artifact(
        key=artifact_key(job, "health"), markdown=as_markdown(health, moved), description="Health of what was kept"
    )
    create_table_artifact(
        key=artifact_key(job, "distributions"),
        table=as_words(as_rows(health), "value"),
        description="Images and captions, counted",
    )
    # In the artifact itself: a browser reaches no store.
    picture = b64encode(job.dataset.store.get(health_path(job.run, SCORES_PNG))).decode()
    create_image_artifact(
        key=artifact_key(job, "scores"),
        image_url=f"data:image/png;base64,{picture}",
        description="Scores, by language",
    )
    said = list(warnings(moved))
    for warning in said:
        get_run_logger().warning(warning)
    return said
