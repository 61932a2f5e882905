"""The retrieval check on a real build: captions that belong to other pictures stop the export."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.integration.prefect_server import PrefectServer
from tests.integration.sample import STAMPS
from tests.integration.test_exit_codes import build
from tests.integration.test_gates import newest_artifacts
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.errors import NeedsCleaning
from vlmdata.layout import Stage
from vlmdata.quality.retrieval import measure_retrieval
from vlmdata.runs import Run, config_of_newest, existing_run

pytestmark = pytest.mark.integration

SAMPLES = 120


def english(limit: int) -> list[dict[str, Any]]:
    """Pictures of the sample with their English caption, all of them different."""
    rows, seen = [], set()
    for line in (STAMPS / "captions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        texts = [one["text"] for one in row.get("captions", []) if one.get("lang") == "en" and one["text"]]
        if texts and texts[0] not in seen and (STAMPS / "pictures" / row["file"]).is_file():
            seen.add(texts[0])
            rows.append({"file": row["file"], "captions": [{"text": texts[0], "lang": "en"}]})
    return rows[:limit]


def write_set(folder: Path, turned: int) -> Path:
    """Each picture has the caption of the one `turned` places on; every caption passes its band."""
    rows = english(SAMPLES + 25)
    captions = [row["captions"] for row in rows]
    for place, row in enumerate(rows):
        row["captions"] = captions[(place + turned) % len(rows)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = {
        "dataset": "turned",
        "store": "./store",
        "source": {"kind": "folder", "path": str(STAMPS / "pictures"), "captions": "./captions.jsonl"},
        "shard_size": 60,
        "filter": {"min_side": 64},
        "caption": {"policy": "none"},
        "quality": {"model": "starter", "accept_above": -1.0, "reject_below": -1.0},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def newest(folder: Path) -> tuple[Dataset, Run]:
    dataset = Dataset(str(folder / "store"), "turned")
    return dataset, existing_run(dataset)


def checked_shards(run: Run) -> Sequence[Shard]:
    report = run.stage(Stage.CHECKED)
    assert report is not None
    return report.shards


def test_a_set_whose_captions_belong_to_other_pictures_is_not_exported(server: PrefectServer, tmp_path: Path) -> None:
    config = write_set(tmp_path, turned=7)
    done = build(config)
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert "do not find their caption" in done.stderr
    worst = r"worst: source [a-z]+ \(\d+%\), origin source \(\d+%\), shard \d+ \(\d+%\), language en \(\d+%\); clean"
    assert re.search(worst, done.stderr)
    ended = {"name": {"any_": ["NeedsCleaning"]}, "type": {"any_": ["FAILED"]}}
    asked = {"flow_runs": {"name": {"any_": ["build-turned"]}, "state": ended}}
    [shown] = httpx.post(f"{server.api}/flow_runs/filter", json=asked).raise_for_status().json()
    assert (shown["state_name"], shown["state_type"]) == ("NeedsCleaning", "FAILED")
    assert "do not find their caption" in shown["state"]["message"]
    dataset, run = newest(tmp_path)
    assert run.stage(Stage.FINAL) is None and not dataset.store.list("turned/04_final")
    assert (run.read("end") or {})["error"] == "NeedsCleaning"
    told = run.read("retrieval") or {}
    assert told["verdict"] == "needs cleaning" and told["miss_rate"] > 0.5 and len(told["worst"]) == 50
    [shown] = newest_artifacts(server, "turned-retrieval-worst")
    rows = [(row["by"], row["name"], int(row["images"]), row["missed"]) for row in json.loads(shown["data"])]
    assert shown["type"] == "table" and rows == [
        (by, f"`{row['name']}`", row["images"], f"{row['miss_rate']:.1%}")
        for by in ("source", "origin", "shard", "language")
        for row in told["groups"][by][:10]
    ]
    shards = {name for by, name, *_ in rows if by == "shard"}
    assert len(shards) > 1 and shards <= {f"`{shard.name}`" for shard in checked_shards(run)}
    assert [name for by, name, *_ in rows if by == "language"] == ["`en`"]
    page = dataset.store.get("turned/runs/000001/retrieval.html").decode()
    assert page.count("data:image/jpeg;base64,") == 50 and "http" not in page.replace("http-equiv", "")

    exported = build(config, "--set", "quality.retrieval.max_miss_rate=1.0")
    assert exported.returncode == 0, exported.stderr


def test_a_right_set_is_better_found_than_a_turned_one_and_a_small_one_tells_nothing(
    server: PrefectServer, tmp_path: Path
) -> None:
    config = write_set(tmp_path, turned=0)
    assert build(config, "--set", "quality.retrieval.max_miss_rate=1.0", "--to", "03_quality_checked").returncode == 0
    dataset, run = newest(tmp_path)
    report, quality = run.stage(Stage.CHECKED), config_of_newest(dataset).quality
    assert report is not None
    found = measure_retrieval(dataset, report.shards, quality)
    assert found.exports == found.scored and found.miss_rate < 0.5
    assert found.exports["image_to_text"].n == report.samples.kept >= 100
    small = quality.model_copy(
        update={"retrieval": quality.retrieval.model_copy(update={"gallery": 20, "galleries": 3})}
    )
    drawn = measure_retrieval(dataset, report.shards, small)
    assert drawn.verdict == "too few to tell" and drawn.exports["image_to_text"].n == 60
    assert drawn.exports["image_to_text"].r10 > found.exports["image_to_text"].r10
    drawn.require_clean()
    strict = quality.model_copy(update={"retrieval": quality.retrieval.model_copy(update={"max_miss_rate": 0.01})})
    with pytest.raises(NeedsCleaning, match="bound is 1%"):
        measure_retrieval(dataset, report.shards, strict).require_clean()
