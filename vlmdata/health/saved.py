"""Health beside the run that it is of: JSON to compare with, parquet to ask questions of, the histogram to look at."""

from __future__ import annotations

import pyarrow as pa

from vlmdata import layout
from vlmdata.checkpoint import Dataset, encode_parquet
from vlmdata.errors import ConfigError, StoreError
from vlmdata.health.health import Health
from vlmdata.health.histogram import score_histogram
from vlmdata.runs import Run, existing_run

SCORES_PNG = "scores.png"
_RECORD = "health"


def save(run: Run, health: Health) -> None:
    """Put the tables and the histogram, then the record that makes them count; what is there stays."""
    store = run.dataset.store
    for name, table in health.tables().items():
        store.create(health_path(run, f"{name}.parquet"), encode_parquet(table))
    store.create(health_path(run, SCORES_PNG), score_histogram(health))
    run.record(_RECORD, health.as_json())


def load(run: Run) -> Health | None:
    """The health of a run; none if it has none, or another version of this software measured it.

    Raises:
        StoreError: the record is not what was written.
    """
    content = run.read(_RECORD)
    if content is None:
        return None
    try:
        return Health.from_json(content)
    except (KeyError, TypeError, pa.ArrowException) as error:
        path = run.dataset.store.locate(layout.run_path(run.dataset.name, run.number, _RECORD))
        raise StoreError(f"{path}: is damaged; delete it, and the next run compares with an earlier one") from error


def newest(dataset: Dataset) -> tuple[Run, Health]:
    """The newest run that has its health on record, and that.

    Raises:
        ConfigError: no run has.
    """
    run: Run | None = existing_run(dataset)
    while run is not None:
        found = load(run)
        if found is not None:
            return run, found
        run = run.parent
    raise ConfigError(f"dataset = {dataset.name!r}: no run of it in {dataset.store_url} came as far as its health")


def previous(run: Run, stage: str) -> Health | None:
    """The health of the newest run before this one that reached the same stage, if there is one."""
    while (before := run.parent) is not None:
        run = before
        found = load(run)
        if found is not None and found.stage == stage:
            return found
    return None


def health_path(run: Run, name: str) -> str:
    """One file of a run's health."""
    return layout.run_file(run.dataset.name, run.number, f"health/{name}")
