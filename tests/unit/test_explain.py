"""One sample's story, for every fate."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest

from vlmdata.checkpoint import Dataset
from vlmdata.errors import ConfigError
from vlmdata.explain import explain
from vlmdata.layout import Stage
from vlmdata.lineage.terminal import print_story
from vlmdata.runs import start_run

FATES = {
    "good.png": ("04_final", "kept"),
    "held.png": ("03_quality_checked", "held"),
    "wrong.png": ("03_quality_checked", "rejected"),
    "silent.png": ("02_captioned", "rejected"),
    "small.png": ("01_filtered", "rejected"),
    "broken.png": ("01_filtered", "rejected"),
    "twin.png": ("01_filtered", "rejected"),
    "gone.png": ("00_raw", "rejected"),
}


def told(story: Any, sample: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(explain(story.dataset, sample), allow_nan=False))
    return found


@pytest.mark.parametrize("key", FATES)
def test_the_last_stage_told_is_where_it_ended(story: Any, key: str) -> None:
    found = told(story, key)
    last = found["stages"][-1]
    assert (found["key"], last["stage"], last["outcome"]) == (key, *FATES[key])
    assert all(stage["outcome"] == "kept" for stage in found["stages"][:-1])


def test_reasons_have_value_and_bound(story: Any) -> None:
    small, held = (told(story, key)["stages"][-1]["facts"]["reason"] for key in ("small.png", "held.png"))
    assert small == {"code": "too_small", "value": 20.0, "bound": 40.0}
    assert (held["code"], held["value"]) == ("borderline", 0.25)
    assert held["bound"] == pytest.approx(0.28)


def test_a_duplicate_names_the_one_that_stays_which_has_its_captions(story: Any) -> None:
    twin, good = told(story, "twin.png"), told(story, "good.png")
    assert twin["stages"][-1]["facts"]["reason"]["related"] == good["id"]
    captions = {row["text"]: row["origin"] for row in good["stages"][1]["facts"]["captions"]}
    assert captions["of the twin"] == f"duplicate:{twin['id']}"


def test_every_caption_has_its_own_story(story: Any) -> None:
    _, filtered, _, checked, final = told(story, "good.png")["stages"]
    assert [row["code"] for row in filtered["facts"]["captions not kept"]] == ["empty_caption"]
    assert [row["text"] for row in checked["facts"]["captions not kept"]] == ["so so"]
    assert {row["text"]: round(row["score"], 3) for row in checked["facts"]["scores"]} == {
        "good": 0.4,
        "so so": 0.25,
        "of the twin": 0.6,
    }
    assert final["facts"]["places"]


def test_measurements_are_told_as_people_write_them(story: Any) -> None:
    facts = told(story, "good.png")["stages"][1]["facts"]
    assert len(facts["phash"]) == 16
    assert (facts["width"], facts["height"], facts["format"]) == (64, 48, "PNG")


def test_captions_of_a_missing_file_are_told(story: Any) -> None:
    [raw] = told(story, "gone.png")["stages"]
    assert (raw["facts"]["code"], raw["facts"]["captions not kept"][0]["text"]) == ("missing_file", "nowhere")


def test_an_id_its_beginning_and_the_key_are_one_sample(story: Any) -> None:
    by_key = told(story, "good.png")
    assert told(story, by_key["id"]) == told(story, by_key["id"][:8]) == by_key


@pytest.mark.parametrize("sample", ["nobody", "", "0" * 32, "1234567"])
def test_no_such_sample(story: Any, sample: str) -> None:
    with pytest.raises(ConfigError, match="give an id or a source key"):
        explain(story.dataset, sample)


def test_a_key_that_two_samples_have(pictures: Any, tiny: Any, tmp_path: Any) -> None:
    for name, seed in (("a.tar", 1), ("b.tar", 2)):
        with tarfile.open(tmp_path / name, "w") as tar:
            member = tarfile.TarInfo("x.png")
            data = pictures.png(seed)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    built = tiny({"unused.png": b""}, source={"kind": "webdataset", "path": str(tmp_path)})
    run = start_run(built.dataset, built.config)
    run.stage_done(built.ingested().report(Stage.RAW))
    with pytest.raises(ConfigError, match="2 samples answer to it"):
        explain(Dataset(built.config.store, "tiny"), "x")


def test_a_picture_that_was_not_embedded_has_no_score_and_failed(pictures: Any, tiny: Any) -> None:
    built = tiny({"a.png": pictures.png(1)}, {"a.png": ["words"]})
    run = start_run(built.dataset, built.config)
    for stage in (Stage.RAW, Stage.FILTERED, Stage.CAPTIONED, Stage.CHECKED):
        steps = {Stage.RAW: built.ingested, Stage.FILTERED: built.filtered, Stage.CAPTIONED: built.captioned}
        built = built.judged({"words": float("nan")}) if stage is Stage.CHECKED else steps[stage]()
        run.stage_done(built.report(stage))
    last = json.loads(json.dumps(explain(built.dataset, "a.png"), allow_nan=False))["stages"][-1]
    assert (last["stage"], last["outcome"], last["facts"]["reason"]) == (
        "03_quality_checked",
        "failed",
        {"code": "not_embedded"},
    )
    assert "score" not in last["facts"]["scores"][0]


def test_a_story_prints(story: Any, capsys: pytest.CaptureFixture[str]) -> None:
    print_story(told(story, "small.png"))
    text = capsys.readouterr().out
    assert "01_filtered  rejected" in text
    assert "code too_small, value 20, bound 40" in text
