"""What a story tells beyond its end: rules that were passed, neighbours, bounds in force, files, versions."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlmdata.checkpoint import Dataset, encode_parquet
from vlmdata.errors import ConfigError
from vlmdata.explain import explain
from vlmdata.forgetting.forget import forget
from vlmdata.forgetting.pages import scrub_pages
from vlmdata.forgetting.who import Asked
from vlmdata.lineage.terminal import print_story
from vlmdata.quality.retrieval import RANKS, RANKS_FILE
from vlmdata.runs import Run, existing_run
from vlmdata.schema import RETRIEVAL, filled


def stage(found: dict[str, Any], number: int) -> dict[str, Any]:
    told: dict[str, Any] = found["stages"][number]
    return told


def rules(found: dict[str, Any], number: int = 1) -> dict[str, dict[str, Any]]:
    return {rule["rule"]: rule for rule in stage(found, number)["rules"]}


def test_every_rule_is_told_with_value_and_bound_also_those_that_were_passed(story: Any) -> None:
    found = explain(story.dataset, "good.png")
    asked = {name: (rule["outcome"], rule["value"], rule["bound"]) for name, rule in rules(found).items()}
    assert list(asked) == ["decodes", "min_side", "near_duplicate", "longest_caption"]
    assert asked["decodes"] == ("passed", 64 * 48, 100_000_000)
    assert asked["min_side"] == ("passed", 48, 40)
    assert asked["longest_caption"] == ("passed", len("of the twin"), 2_000)
    near = rules(found)["near_duplicate"]
    assert near["outcome"] == "passed" and near["value"] > near["bound"] == 8


def test_rules_after_the_one_that_said_no_were_not_asked(story: Any) -> None:
    outcomes = {name: rule["outcome"] for name, rule in rules(explain(story.dataset, "small.png")).items()}
    assert outcomes == {"decodes": "passed", "min_side": "rejected", "near_duplicate": "not asked"}
    broken = [rule["outcome"] for rule in stage(explain(story.dataset, "broken.png"), 1)["rules"]]
    assert broken == ["rejected", "not asked", "not asked"]


def test_a_near_duplicate_and_the_one_that_displaced_it_name_each_other(story: Any) -> None:
    twin, good = (explain(story.dataset, key) for key in ("twin.png", "good.png"))
    gone = rules(twin)["near_duplicate"]
    assert (gone["outcome"], gone["related"], gone["key"]) == ("rejected", good["id"], "good.png")
    [displaced] = rules(good)["near_duplicate"]["displaced"]
    assert displaced == {"id": twin["id"], "key": "twin.png", "distance": gone["value"]}


def test_the_nearest_that_stays_is_the_nearest_of_all(story: Any) -> None:
    found = {
        key: explain(story.dataset, key) for key in ("good.png", "also.png", "held.png", "wrong.png", "silent.png")
    }
    hashes = {key: int(stage(one, 1)["facts"]["phash"], 16) for key, one in found.items()}
    for key, one in found.items():
        distances = {other: (hashes[key] ^ hashes[other]).bit_count() for other in hashes if other != key}
        near = rules(one)["near_duplicate"]
        assert near["value"] == min(distances.values()) == distances[near["key"]]


def test_each_score_has_the_bounds_that_were_in_force_and_the_decision(story: Any) -> None:
    scores = stage(explain(story.dataset, "good.png"), 3)["facts"]["scores"]
    told = {row["text"]: (row["outcome"], row.get("code")) for row in scores}
    assert told == {"good": ("accepted", None), "so so": ("held", "borderline"), "of the twin": ("accepted", None)}
    assert {(row["accept_above"], row["reject_below"]) for row in scores} == {(0.28, 0.2)}
    assert all("LAION" in row["bounds_from"] for row in scores)


def test_the_exported_picture_is_where_the_story_says(story: Any) -> None:
    facts = stage(explain(story.dataset, "good.png"), 4)["facts"]
    [place] = facts["places"]
    file = Path(place["location"])
    data = file.read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (place["sha256"], place["bytes"])
    assert Image.open(io.BytesIO(data[place["offset"] :])).size == (facts["width"], facts["height"])


def test_ranks_of_the_retrieval_check_are_told_and_forgotten(story: Any, tmp_path: Path) -> None:
    run = existing_run(story.dataset)
    good, also = (explain(story.dataset, key)["id"] for key in ("good.png", "also.png"))
    drawn = filled(
        RETRIEVAL, 2, id=_strings([good, also]), caption_id=_strings(["c1", "c2"]), text="", shard="", gallery=2,
        to_text=1, to_image=2, score=0.4, model="given",
    )  # fmt: skip
    run.attach(RANKS_FILE, encode_parquet(drawn.select(RANKS)).to_pybytes())
    rank = stage(explain(story.dataset, "good.png"), 3)["facts"]["retrieval"]
    assert (rank["gallery"], rank["to_text"], rank["to_image"]) == (2, 1, 2)
    assert scrub_pages(story.dataset, [good]) == 1
    assert "retrieval" not in stage(explain(story.dataset, "good.png"), 3)["facts"]
    assert "retrieval" in stage(explain(story.dataset, "also.png"), 3)["facts"]


def _strings(values: list[str]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.string())


@pytest.fixture
def grown(growing: Callable[..., Any], pictures: Any) -> Any:
    """Version 1 with `old` and `stays`; 2 with `new` in the place of `old`, and a smaller copy of `stays`."""
    made = growing({"old.png": pictures.png(1), "stays.png": pictures.png(2, 96, 72)})
    finish(made)
    made.remove("old.png")
    made.add({"new.png": pictures.png(3), "copy.png": pictures.encode(pictures.picture(2, 64, 48), "JPEG")})
    finish(made)
    return made


def finish(made: Any) -> None:
    run = made.begin()
    version = made.publish(run=run)
    record(run, version)


def record(run: Run, version: Any) -> None:
    """As the flow leaves its records."""
    from vlmdata.layout import Stage
    from vlmdata.runs import report

    for stage_ in Stage:
        shards = version.exported if stage_ is Stage.FINAL else version.shards
        run.stage_done(report(run.dataset, stage_, shards))
    run.finish("completed", "", version=version.number)


def test_versions_are_told_from_and_to_and_as_what(grown: Any) -> None:
    assert explain(grown.dataset, "stays.png")["versions"] == [{"from": 1, "to": 2, "outcome": "kept"}]
    assert explain(grown.dataset, "new.png")["versions"] == [{"from": 2, "to": 2, "outcome": "kept"}]
    assert explain(grown.dataset, "copy.png")["versions"] == [
        {"from": 2, "to": 2, "outcome": "rejected", "stage": "01_filtered", "code": "near_duplicate"}
    ]


def test_what_only_a_former_version_has_is_told_from_there_and_said_so(grown: Any) -> None:
    found = explain(grown.dataset, "old.png")
    assert (found["version"], found["run"]) == (1, 1)
    assert found["note"] == "run 2 does not have it any more; this is version 1"
    assert found["versions"] == [{"from": 1, "to": 1, "outcome": "kept"}]
    assert stage(found, 4)["facts"]["places"]


def test_a_version_can_be_asked_for(grown: Any) -> None:
    then, now = (explain(grown.dataset, "stays.png", number) for number in (1, 2))
    assert (then["version"], now["version"], then["note"]) == (1, 2, None)
    assert not rules(then)["near_duplicate"]["displaced"]
    assert [one["key"] for one in rules(now)["near_duplicate"]["displaced"]] == ["copy.png"]
    # The same shard stands in both, and so does what the first decision was about.
    assert rules(then)["near_duplicate"]["key"] == "old.png" and rules(now)["near_duplicate"]["key"] == "new.png"
    with pytest.raises(ConfigError, match="not in version 2 of tiny; it is in version 1"):
        explain(grown.dataset, "old.png", 2)
    with pytest.raises(ConfigError, match=r"version 7: .* has no such version"):
        explain(grown.dataset, "stays.png", 7)


def test_a_picture_that_is_withdrawn_has_no_story_and_its_captions_are_in_none(grown: Any) -> None:
    copy = explain(grown.dataset, "copy.png")["id"]
    forget(grown.dataset, Asked.of([copy], [], [], []))
    assert [row["code"] for row in [stage(explain(grown.dataset, copy), 0)["facts"]]] == ["forgotten"]
    near = rules(explain(grown.dataset, "stays.png"))["near_duplicate"]
    assert near["displaced"] == []


def test_an_address_is_a_name_too(tiny: Callable[..., Any], pictures: Any, tmp_path: Path) -> None:
    built = tiny({"a.png": pictures.png(1), "b.png": pictures.png(2)}, {"a.png": ["a"]})
    rows = [
        {"file": "a.png", "captions": ["a"], "url": "https://a.example/1.png", "license": "CC0-1.0"},
        {"file": "b.png", "captions": ["b"], "url": "https://a.example/2.png"},
    ]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    from vlmdata.layout import Stage
    from vlmdata.runs import start_run

    run = start_run(built.dataset, built.config)
    run.stage_done(built.ingested().report(Stage.RAW))
    found = explain(Dataset(built.config.store, "tiny"), "https://a.example/1.png")
    assert (found["key"], stage(found, 0)["facts"]["license"]) == ("a.png", "CC0-1.0")
    with pytest.raises(ConfigError, match="or its address"):
        explain(built.dataset, "https://a.example/3.png")


@pytest.mark.parametrize("key", ["good.png", "held.png", "small.png", "broken.png", "twin.png", "gone.png"])
def test_a_story_prints_a_line_a_fact_and_no_more_than_a_screen(
    story: Any, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = explain(story.dataset, key)
    print_story(found)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{key}  {found['id']}"
    assert len(lines) < 45 and "\x1b" not in "".join(lines)
    for one in found["stages"]:
        assert any(f"{one['stage']}  {one['outcome']}" in line for line in lines)
    for rule in (rule for one in found["stages"] for rule in one["rules"]):
        assert any(rule["rule"] in line for line in lines)


def test_what_strangers_wrote_does_not_command_the_terminal(story: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = explain(story.dataset, "good.png")
    stage(found, 0)["facts"]["captions"] = [{"text": "\x1b[2J[red]boo[/red]\u202e", "origin": "source"}]
    print_story({**found, "key": "\x1b]0;x\x07.png"})
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out
    assert "\\x1b[2J[red]boo[/red]\\u202e" in out
