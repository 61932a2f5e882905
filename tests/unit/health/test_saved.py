"""Health lies beside its run, and finds the run to be compared with."""

from __future__ import annotations

import io
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.errors import StoreError
from vlmdata.health.measure import measure_health
from vlmdata.health.saved import health_path, load, previous, save
from vlmdata.runs import Run, existing_run, start_run


@pytest.fixture
def dataset(tmp_path: Any) -> Dataset:
    return Dataset(str(tmp_path), "set")


def test_what_is_saved_is_what_is_loaded(story: Any, dataset: Dataset) -> None:
    health = measure_health(existing_run(story.dataset))
    run = start_run(dataset, story.config)
    assert load(run) is None
    save(run, health)
    save(run, health)
    assert load(run) == health
    for name, table in health.tables().items():
        data = dataset.store.get(health_path(run, f"{name}.parquet"))
        assert pq.read_table(io.BytesIO(data)).equals(table)
    with Image.open(io.BytesIO(dataset.store.get(health_path(run, "scores.png")))) as picture:
        assert len(picture.convert("RGB").getcolors(maxcolors=picture.width * picture.height) or []) > 2


def test_the_run_before_that_reached_the_same_stage(story: Any, dataset: Dataset) -> None:
    health = measure_health(existing_run(story.dataset))
    runs = [start_run(dataset, story.config) for _ in range(4)]
    assert previous(runs[3], health.stage) is None
    save(runs[0], health)
    save(runs[2], measure_health(runs[2]))
    assert previous(runs[3], health.stage) == health
    assert previous(runs[0], health.stage) is None


@pytest.mark.parametrize("spoilt", [{"stages": 3}, {"figures": None, "scores": [{"count": "x"}]}])
def test_a_damaged_record(story: Any, dataset: Dataset, spoilt: dict[str, Any]) -> None:
    run = start_run(dataset, story.config)
    run.record("health", {**measure_health(run).as_json(), **spoilt})
    with pytest.raises(StoreError, match="is damaged"):
        load(run)


def test_its_files_are_no_runs(story: Any, dataset: Dataset) -> None:
    run = start_run(dataset, story.config)
    save(run, measure_health(run))
    assert existing_run(dataset) == Run(dataset, 1)
    assert dataset.store.exists(layout.run_path("set", 1, "health"))
