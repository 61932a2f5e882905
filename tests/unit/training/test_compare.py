"""Two sets by what models learn from them: equal compute, the same held-out pictures, intervals that are paired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training.conftest import Configured, drawn, tar_of, write_export
from vlmdata import progress
from vlmdata.cli import main
from vlmdata.errors import ConfigError, SourceError
from vlmdata.training.compare import MEASURES, Interval, as_lines, compare


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


def test_held_out_pictures_are_known_by_their_bytes_too(configured: Configured, tmp_path: Path) -> None:
    """The same pictures under other names."""
    a, b = tmp_path / "a", write_export(tmp_path / "b", samples=48)
    a.mkdir()
    rows = [(f"other-{n:02}", drawn(n)[0], [{"text": drawn(n)[1]}]) for n in range(48)]
    (a / "0.tar").write_bytes(tar_of(rows))
    config = configured(
        out=str(tmp_path / "out"), alignment={"model": "starter", "pretrained": None, "max_misaligned": 1}
    )
    with pytest.raises(
        SourceError, match=r"/a: trains on [0-9]+ of the held-out pictures; split both sets alike, drop copies, or"
    ):
        compare(config, str(a), str(b), seeds=2)


def test_the_command_compares(configured: Configured, tmp_path: Path, export: Path, capsys: Any) -> None:
    import yaml

    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(configured(epochs=1).model_dump(mode="json", exclude_unset=True)))
    words = ["compare", str(export), str(export), "--config", str(config), "--seeds", "2", "--out", str(tmp_path / "c")]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", ["vlmdata", *words])
        main()
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    assert "| | A | B | B - A, paired |" in said.out and "+0.0 [+0.0, +0.0]" in said.out
    assert "2 seeds; 3 steps of 8 pairs for each" in said.out
