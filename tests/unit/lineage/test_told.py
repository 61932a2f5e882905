"""A story tells who gave each score, where a picture was asked for, and all that stage 01 measured of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.servers.hostile_web import hostile_web
from vlmdata.checkpoint import Counts, Dataset, Result, Shard, publish, step_key
from vlmdata.explain import explain
from vlmdata.layout import Stage, Step
from vlmdata.lineage.terminal import print_story
from vlmdata.quality.bands import judge_shard
from vlmdata.runs import Run, start_run
from vlmdata.schema import FACTS, SCORES, filled

MODELS = {"en": ("one@1111", "aaaa"), "fr": ("other@2222", "bbbb")}
"""By language who gives the scores: model and weights."""


def facts(found: Mapping[str, Any], number: int) -> dict[str, Any]:
    told: dict[str, Any] = found["stages"][number]["facts"]
    return told


def lines(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the terminal says of a story."""
    print_story(found)
    return capsys.readouterr().out.splitlines()


def begun(built: Any) -> tuple[Run, Any]:
    """A run that has come through 01_filtered."""
    run, raw = start_run(built.dataset, built.config), built.ingested()
    run.stage_done(raw.report(Stage.RAW))
    filtered = raw.filtered()
    run.stage_done(filtered.report(Stage.FILTERED))
    return run, filtered


def scored_by_two(dataset: Dataset, shard: Shard, scores: Mapping[str, float]) -> Shard:
    """The checkpoint that two models leave, each for its language."""
    captions = dataset.read(shard, Step.CAPTIONED, "captions")
    langs = captions["lang"].to_pylist()
    values = [scores[text] for text in captions["text"].to_pylist()]
    table = filled(
        SCORES,
        len(values),
        id=captions["id"],
        caption_id=captions["caption_id"],
        score=pa.array(values, pa.float32()),
        language=captions["lang"],
        model=pa.array([MODELS[lang][0] for lang in langs], pa.string()),
        weights=pa.array([MODELS[lang][1] for lang in langs], pa.string()),
    )
    key = step_key(Step.SCORES, captions["caption_id"].to_pylist(), [str(value) for value in values])
    done = Result({"scores": table}, captions=Counts(came=len(values), kept=len(values)))
    return shard.at(Step.SCORES, publish(dataset, shard.name, Step.SCORES, key, done))


def test_each_score_comes_with_the_model_that_gave_it(
    tiny: Callable[..., Any], pictures: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [{"text": "a bus", "lang": "en"}, {"text": "un bus", "lang": "fr"}, {"text": "a red bus", "lang": "en"}]
    scores = {"a bus": 0.5, "un bus": 0.4, "a red bus": 0.25}
    run, filtered = begun(tiny({"a.png": pictures.png(1)}, {"a.png": said}))
    checked = filtered.captioned().each(scored_by_two, scores).each(judge_shard, filtered.config.quality)
    for stage in (Stage.CAPTIONED, Stage.CHECKED):
        run.stage_done(checked.report(stage))
    found = explain(filtered.dataset, "a.png")
    told = {one["text"]: (one["score"], one["model"], one["weights"]) for one in facts(found, 3)["scores"]}
    assert told == {one["text"]: (pytest.approx(scores[one["text"]]), *MODELS[one["lang"]]) for one in said}
    judges = [line for line in lines(found, capsys) if line.strip().startswith("judge ")]
    assert [line.split("judge")[1].partition(";")[0].strip() for line in judges] == [
        "one@1111, weights aaaa (en)",
        "other@2222, weights bbbb (fr)",
    ]


def test_the_address_of_a_sample_of_a_list_is_told_and_so_is_where_it_led(
    tiny: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with hostile_web() as web:
        asked = {"led.jpg": web.url("/to-relative"), "gone.jpg": web.url("/status/404")}
        rows = [{"url": url, "caption": f"the picture {name}"} for name, url in asked.items()]
        (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        built = tiny(
            {},
            source={"kind": "urls", "path": str(tmp_path / "list.jsonl")},
            network={"allow_networks": [f"{web.host}/32"], "retries": 0},
        )
        begun(built)
        led, gone = (explain(built.dataset, url) for url in asked.values())
        assert (facts(led, 0)["url"], facts(led, 0)["fetched"]["final_url"]) == (
            asked["led.jpg"],
            web.url("/picture/1.jpg"),
        )
        assert (gone["key"], facts(gone, 0)["code"]) == (asked["gone.jpg"], "http_404")
        told = lines(led, capsys)
        [address] = [line for line in told if line.strip().startswith("address ")]
        assert address.split() == ["address", asked["led.jpg"]]
        [fetched] = [line for line in told if line.strip().startswith("fetched ")]
        assert "http_status 200" in fetched and web.url("/picture/1.jpg") in fetched
        assert lines(gone, capsys)[0] == f"{asked['gone.jpg']}  {gone['id']}"


def measured(built: Any) -> dict[str, dict[str, Any]]:
    """By key, what is on record of each picture: every column of `schema.FACTS` that says something of it."""
    keys = {row["id"]: row["key"] for row in built.rows(Step.RAW, "samples")}
    found = {keys[row["id"]]: row for row in built.rows(Step.FACTS, "facts")}
    of_the_row = {"id", "retryable"}
    return {
        key: {name: row[name] for name in FACTS.names if name not in of_the_row and row[name] is not None}
        for key, row in found.items()
    }


def talkative(pictures: Any) -> dict[str, bytes]:
    """A picture for each thing that is measured."""
    from PIL import Image

    turned = Image.Exif()
    turned[0x0112] = 6
    frames: Sequence[Any] = [pictures.picture(seed) for seed in (2, 3, 4)]
    return {
        "turned.jpg": pictures.encode(pictures.picture(1, 90, 60), "JPEG", exif=turned.tobytes()),
        "moving.webp": pictures.encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
        "grey.png": pictures.encode(pictures.picture(5, 70, 60, "L")),
        "broken.png": pictures.png(6)[:-40],
    }


def test_every_measurement_that_is_on_record_is_in_the_story(tiny: Callable[..., Any], pictures: Any) -> None:
    _, built = begun(tiny(talkative(pictures)))
    record = measured(built)
    assert set().union(*record.values()) == set(FACTS.names) - {"id", "retryable"}, "each column says something"
    for key, row in record.items():
        told = facts(explain(built.dataset, key), 1)
        written = row if "phash" not in row else {**row, "phash": f"{row['phash']:016x}"}
        assert {name: told.get(name) for name in row} == written, key
    assert (record["turned.jpg"]["width"], record["turned.jpg"]["height"]) == (60, 90)
    assert (record["turned.jpg"]["orientation"], record["moving.webp"]["frames"]) == (6, 3)
    assert (record["grey.png"]["mode"], record["broken.png"]["error"]) == ("L", "truncated")


def test_every_measurement_is_in_the_lines_of_the_terminal(
    tiny: Callable[..., Any], pictures: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, built = begun(tiny(talkative(pictures)))
    for key, row in measured(built).items():
        told = lines(explain(built.dataset, key), capsys)
        if "error" in row:
            [reason] = [line for line in told if line.split()[1:2] == ["reason"]]
            assert row["error"] in reason and row["detail"] in reason
            continue
        [picture] = [line for line in told if line.strip().startswith("picture ")]
        said = [f"{row['format']} {row['mode']}, {row['width']} x {row['height']}", f"pHash {row['phash']:016x}"]
        said += [f"first of {row['frames']} frames"] if row["frames"] > 1 else []
        said += [f"EXIF {row['orientation']}"] if row["orientation"] > 1 else []
        assert all(words in picture for words in said), picture
