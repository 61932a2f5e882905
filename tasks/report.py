"""The page of a run that is over, beside its records."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact

from tasks.job import ONCE, Job, address_of, artifact_key
from vlmdata.layout import REPORT
from vlmdata.report.make import make_report


@task(**ONCE, name="write-report")
def write_report(job: Job) -> str | None:
    """Put the report beside the run, and link it; returns where people find it, None if there is none."""
    if not job.config.report:
        return None
    try:
        page = job.run.attach(REPORT, make_report(job.run))
    # What was built is safe by now; a page about it, whatever becomes of it, is no reason to call that a failure.
    except Exception as error:
        get_run_logger().info(f"no report: {' '.join(str(error).split()) or type(error).__name__}")
        return None
    command = f"vlmdata report --serve --store {job.config.store} --dataset {job.config.dataset}"
    told = f"`{page}`; over all samples: `{command}`"
    create_link_artifact(
        key=artifact_key(job, "report"),
        link=address_of(page, job.config.store),
        link_text="The report",
        description=told,
    )
    return page
