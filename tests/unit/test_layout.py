"""Where things lie."""

from __future__ import annotations

import itertools
import re

from vlmdata import layout
from vlmdata.layout import REVISION, Stage, Step


def test_every_step_has_a_revision() -> None:
    assert set(REVISION) == set(Step)
    assert all(isinstance(revision, int) and revision >= 1 for revision in REVISION.values())


def test_every_stage_is_a_step_and_stages_sort_as_they_run() -> None:
    assert {stage.value for stage in Stage} <= {step.value for step in Step}
    assert sorted(stage.value for stage in Stage) == [stage.value for stage in Stage]
    assert all(step.value.split("/")[0] in {stage.value for stage in Stage} for step in Step)


def test_no_two_names_share_a_place() -> None:
    places = [layout.manifest_prefix("d", step, "0" * 32) for step in Step]
    places += [layout.data_path("d", step, "0" * 32) for step in Step]
    places += [layout.export_prefix("d", "0" * 32), layout.runs_prefix("d")]
    assert not any(a == b or b.startswith(f"{a}/") for a, b in itertools.permutations(places, 2))


def test_generations_and_runs_sort_as_numbers() -> None:
    numbers = [0, 9, 10, 99, 100, 99_999]
    paths = [layout.manifest_path("d", Step.RAW, "k", number) for number in numbers]
    assert sorted(paths) == paths
    runs = [layout.run_path("d", number, "start") for number in numbers]
    assert sorted(runs) == runs
    assert re.fullmatch(r"d/runs/000009/start\.json", runs[1])
