"""Two sets by what models learn from them: equal compute, the same held-out pictures, intervals that are paired."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.unit.training.conftest import Configured, write_export
from vlmdata import progress
from vlmdata.errors import ConfigError, SourceError
from vlmdata.training.compare import MEASURES, Interval, as_lines, compare


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Heard(progress.Listener):
    def __init__(self) -> None:
        self.begun: list[str] = []

    def begin(self, step: str, total: int) -> None:
        self.begun.append(step)


def test_two_sets_are_compared_with_equal_compute(configured: Configured, tmp_path: Path) -> None:
    a, b = (write_export(tmp_path / name, samples=count) for name, count in (("a", 96), ("b", 48)))
    config = configured(out=str(tmp_path / "out"), epochs=1)
    heard = Heard()
    with progress.listening(heard):
        found = compare(config, str(a), str(b), seeds=2)
    assert heard.begun == [f"train {side}, seed {seed}, stage 1 of 1" for seed in (0, 1) for side in "AB"]
    assert found.sizes[0] > found.sizes[1]
    stories = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("[ab]/seed-*/run.json")]
    assert len(stories) == 4
    assert {story["steps"] for story in stories} == {found.steps} == {found.sizes[1] // 8}
    for name in MEASURES:
        assert found.difference[name].mean == pytest.approx(found.b[name].mean - found.a[name].mean)
        assert found.difference[name].low <= found.difference[name].mean <= found.difference[name].high
    assert json.loads((tmp_path / "out/compare.json").read_text())["seeds"] == 2
    assert len(as_lines(found)) == 9


def test_the_same_set_twice_differs_by_nothing(configured: Configured, tmp_path: Path, export: Path) -> None:
    found = compare(configured(out=str(tmp_path / "out"), epochs=1), str(export), str(export), seeds=2)
    assert all(one == Interval(0.0, 0.0, 0.0) for one in found.difference.values())


def test_held_out_pictures_that_are_trained_on_are_refused(configured: Configured, tmp_path: Path) -> None:
    a, b = write_export(tmp_path / "a", samples=48), write_export(tmp_path / "b", samples=48, splits=True)
    with pytest.raises(SourceError, match=r"trains on [0-9]+ of the held-out pictures; split both sets alike"):
        compare(configured(out=str(tmp_path / "out")), str(a), str(b), seeds=2)


def test_one_seed_is_no_comparison(configured: Configured, export: Path) -> None:
    with pytest.raises(ConfigError, match="--seeds 1: expected 2 or more"):
        compare(configured(), str(export), str(export), seeds=1)


def test_an_interval_is_student_s() -> None:
    found = Interval.of([1.0, 2.0, 3.0])
    assert (found.mean, found.high) == (2.0, pytest.approx(2 + 4.302652 / 3**0.5, rel=1e-5))
