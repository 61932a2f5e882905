"""Health beside the run that it is of: JSON to compare with, parquet to ask questions of, the histogram to look at."""

from __future__ import annotations

import pyarrow as pa

from vlmdata import layout
from vlmdata.checkpoint import encode_parquet
from vlmdata.errors import StoreError
from vlmdata.health.health import Health
from vlmdata.health.histogram import score_histogram
from vlmdata.runs import Run

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


def previous(run: Run, stage: str) -> Health | None:
    """The health of the newest run before this one that reached the same stage, if there is one."""
    while (parent := (run.read("start") or {}).get("parent")) is not None:
        run = Run(run.dataset, parent)
        found = load(run)
        if found is not None and found.stage == stage:
            return found
    return None


def health_path(run: Run, name: str) -> str:
    """One file of a run's health."""
    return layout.run_file(run.dataset.name, run.number, f"health/{name}")
