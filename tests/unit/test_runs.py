"""Records of runs: numbered once, linked to the run before, and read back as they were."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from vlmdata import layout
from vlmdata.checkpoint import Counts, Dataset, Shard
from vlmdata.config_reading import parse_config
from vlmdata.errors import ConfigError
from vlmdata.layout import Stage, Step
from vlmdata.runs import COMPLETED, IN_PART, Run, StageReport, existing_run, finished_alike, last_run, start_run

CONFIG = parse_config({"dataset": "set", "source": {"kind": "folder", "path": "/p"}})


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(str(tmp_path / "store"), "set")


def test_runs_are_numbered_and_name_their_parent(dataset: Dataset) -> None:
    runs = [start_run(dataset, CONFIG) for _ in range(3)]
    assert [run.number for run in runs] == [1, 2, 3]
    records = [run.read("start") or {} for run in runs]
    assert [record["parent"] for record in records] == [None, 1, 2]
    assert records[0]["config"] == CONFIG.model_dump(mode="json")


def test_runs_that_start_at_once_have_numbers_of_their_own(dataset: Dataset) -> None:
    barrier = Barrier(8)

    def begin(_: int) -> Run:
        barrier.wait()
        return start_run(Dataset(dataset.store_url, dataset.name), CONFIG)

    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(begin, range(8)))
    assert sorted(run.number for run in runs) == list(range(1, 9))
    parents = {run.number: (run.read("start") or {})["parent"] for run in runs}
    assert parents == {number: number - 1 or None for number in range(1, 9)}


def test_a_record_is_never_overwritten(dataset: Dataset) -> None:
    run = start_run(dataset, CONFIG)
    run.finish(COMPLETED, "first")
    run.finish(IN_PART, "second")
    assert (run.read("end") or {})["message"] == "first"
    assert run.read("nothing") is None


def test_reports_read_back_as_they_were(dataset: Dataset) -> None:
    report = StageReport(
        Stage.CHECKED,
        Counts(came=9, kept=5, rejected=2, held=1, failed=1),
        Counts(came=3, kept=3),
        {"misaligned": 2},
        {"empty_caption": 1},
        1,
        1.25,
        (2.5, 7.0),
        (Shard("00000", 9, {Step.RAW.value: "path"}),),
    )
    run = start_run(dataset, CONFIG)
    run.stage_done(report)
    assert run.stage(Stage.CHECKED) == report
    assert run.stage(Stage.FINAL) is None


def test_strangers_files_among_the_runs(dataset: Dataset) -> None:
    start_run(dataset, CONFIG)
    dataset.store.put(f"{layout.runs_prefix('set')}/.DS_Store", b"")
    dataset.store.put(f"{layout.runs_prefix('set')}/notes/x.json", b"")
    found = last_run(dataset)
    assert found is not None
    assert found.number == 1


def test_a_dataset_that_is_not_there(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it is empty"):
        existing_run(dataset)
    start_run(Dataset(dataset.store_url, "stamps"), CONFIG)
    with pytest.raises(ConfigError, match=r"dataset = 'set': no run of it in .* \(it has stamps\)"):
        existing_run(dataset)


@pytest.mark.parametrize(
    ("end", "found"),
    [
        ({"outcome": COMPLETED, "fingerprint": "f", "whole": "w"}, True),
        ({"outcome": COMPLETED, "fingerprint": "other", "whole": "w"}, False),
        ({"outcome": IN_PART, "fingerprint": "f", "whole": "w"}, False),
        ({"outcome": COMPLETED, "fingerprint": "f", "whole": "gone"}, False),
        ({"outcome": COMPLETED}, False),
        (None, False),
    ],
)
def test_only_a_whole_run_of_the_same_is_found(dataset: Dataset, end: dict[str, Any] | None, found: bool) -> None:
    run = start_run(dataset, CONFIG)
    dataset.store.put("w", b'{"files": []}')
    if end is not None:
        run.record("end", end)
    assert (finished_alike(dataset, "f", Stage.FINAL) is not None) == found


def test_a_run_of_the_first_stages_is_found_as_long_as_what_it_made_is_there(dataset: Dataset) -> None:
    path = layout.manifest_path("set", Step.RAW, "key", 0)
    run = start_run(dataset, CONFIG)
    run.stage_done(StageReport(Stage.RAW, shards=(Shard("00000", 9, {Step.RAW.value: path}),)))
    run.finish(COMPLETED, "", fingerprint="f")
    assert finished_alike(dataset, "f", Stage.RAW) is None
    dataset.store.put(path, b"{}")
    assert finished_alike(dataset, "f", Stage.RAW) == run
    assert finished_alike(dataset, "f", Stage.FILTERED) is None, "that stage was not reached"


def test_only_the_newest_run_counts(dataset: Dataset) -> None:
    dataset.store.put("w", b'{"files": []}')
    start_run(dataset, CONFIG).finish(COMPLETED, "", fingerprint="f", whole="w")
    start_run(dataset, CONFIG)
    assert finished_alike(dataset, "f", Stage.FINAL) is None


def test_records_hold_no_secret(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    run = start_run(dataset, CONFIG)
    assert "sk-very-secret" not in json.dumps(run.read("start"))
