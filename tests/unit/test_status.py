"""The funnel of a run in which every fate occurs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vlmdata.checkpoint import Dataset
from vlmdata.console import print_funnel
from vlmdata.errors import ConfigError
from vlmdata.funnel import COLUMNS, as_markdown, rows, why
from vlmdata.layout import Stage
from vlmdata.runs import start_run
from vlmdata.status import status

COUNTS = ("in", "kept", "rejected", "held", "failed")


@pytest.fixture(scope="module")
def told(story: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(status(story.dataset)))
    return found


def counts(told: dict[str, Any], stage: Stage) -> list[int]:
    return [told["stages"][stage.value][name] for name in COUNTS]


def test_every_stage_accounts_for_what_came(told: dict[str, Any]) -> None:
    assert list(told["stages"]) == [stage.value for stage in Stage]
    assert counts(told, Stage.RAW) == [9, 8, 1, 0, 0]
    assert counts(told, Stage.FILTERED) == [8, 5, 3, 0, 0]
    assert counts(told, Stage.CAPTIONED) == [5, 4, 1, 0, 0]
    assert counts(told, Stage.CHECKED) == [4, 2, 1, 1, 0]
    assert counts(told, Stage.FINAL) == [2, 2, 0, 0, 0]
    for stage in told["stages"].values():
        for tally in (stage, stage["captions"]):
            assert tally["in"] == tally["kept"] + tally["rejected"] + tally["held"] + tally["failed"]
        assert sum(stage["reasons"].values()) == stage["in"] - stage["kept"]
        assert sum(stage["captions"]["reasons"].values()) == stage["captions"]["in"] - stage["captions"]["kept"]
        assert stage["rejection_rate"] == stage["rejected"] / stage["in"]


def test_reasons(told: dict[str, Any]) -> None:
    reasons = {stage: told["stages"][stage]["reasons"] for stage in told["stages"]}
    assert reasons == {
        "00_raw": {"missing_file": 1},
        "01_filtered": {"near_duplicate": 1, "too_small": 1, "truncated": 1},
        "02_captioned": {"no_caption": 1},
        "03_quality_checked": {"borderline": 1, "misaligned": 1},
        "04_final": {},
    }


def test_scores_are_filled_back(told: dict[str, Any]) -> None:
    """Best of good (with its twin's caption), fine, hm, not it; then of the two that are kept."""
    means = [told["stages"][stage]["mean_score"] for stage in told["stages"]]
    everything, kept = (0.6 + 0.3 + 0.25 + 0.1) / 4, (0.6 + 0.3) / 2
    assert means == pytest.approx([everything, everything, everything, kept, kept], abs=1e-6)


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [("set/04_final/ab", "{store}/set/04_final/ab"), ("/old/set", "/old/set"), ("s3://b/set", "s3://b/set")],
)
def test_an_export_is_found_where_the_store_is_now(story: Any, tmp_path: Any, recorded: str, shown: str) -> None:
    before = Dataset(str(tmp_path / "before"), "set")
    start_run(before, story.config).finish("completed", "", export=recorded)
    (tmp_path / "before").rename(tmp_path / "now")
    assert status(Dataset(str(tmp_path / "now"), "set"))["export"] == shown.format(store=tmp_path / "now")


def test_a_stage_that_was_not_reached_has_zeros_and_no_score(story: Any, tmp_path: Any) -> None:
    dataset = Dataset(str(tmp_path), "set")
    start_run(dataset, story.config)
    told = status(dataset)
    assert told["outcome"] == "under way or killed"
    for stage in told["stages"].values():
        assert [stage[name] for name in COUNTS] == [0] * 5
        assert (stage["rejection_rate"], stage["mean_score"], stage["reasons"]) == (None, None, {})


def test_no_run(tmp_path: Any) -> None:
    with pytest.raises(ConfigError):
        status(Dataset(str(tmp_path), "set"))


def test_the_funnel_as_text(told: dict[str, Any]) -> None:
    assert rows(told)[3] == ("03_quality_checked", "4", "2", "1", "1", "0", "25.0%", "0.450")
    assert ("01_filtered", "samples", "too_small", "1") in why(told)
    assert ("01_filtered", "captions", "empty_caption", "1") in why(told)
    lines = as_markdown(told).splitlines()
    assert lines[0] == "## tiny, run 1: completed in part"
    assert lines[2] == f"| {' | '.join(COLUMNS)} |"
    assert "| 03_quality_checked | 4 | 2 | 1 | 1 | 0 | 25.0% | 0.450 |" in lines


def test_no_number_is_cut_short_where_nobody_watches(told: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    large = {
        **told,
        "stages": {name: {**row, "in": 12_345_678, "kept": 11_345_678} for name, row in told["stages"].items()},
    }
    print_funnel({**large, "export": "/a/long/path" * 30})
    text = capsys.readouterr().out
    assert "…" not in text
    assert "12,345,678" in text
    assert f"Export: {'/a/long/path' * 30}\n" in text
