"""A few dozen of the demo's pictures, with troubles, and builds of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from tests.integration.prefect_server import used_here
from tests.integration.processes import ROOT
from vlmdata.config import BuildConfig
from vlmdata.config_reading import parse_config
from vlmdata.store import open_store

STAMPS = ROOT / "examples" / "stamps"
PICTURES = 30
SHARD_SIZE = 8


def make_sample(folder: Path) -> Path:
    """`pictures/` and `captions.jsonl` below `folder`: 30 that are good, 4 that are not, 2 without a caption."""
    pictures = folder / "pictures"
    rows = _spread([row for row in _captioned() if _is_good(row)])
    for row in rows:
        (pictures / row["file"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(STAMPS / "pictures" / row["file"], pictures / row["file"])
    rows = rows[2:]
    rows += _troubles(pictures, rows)
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def _captioned() -> list[dict[str, Any]]:
    lines = (STAMPS / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _is_good(row: dict[str, Any]) -> bool:
    """In English too, large enough to stay, and none of the demo's own troubles."""
    file = STAMPS / "pictures" / row["file"]
    planted = row["file"].startswith("inbox/")
    if planted or not file.is_file() or not any(caption.get("lang") == "en" for caption in row.get("captions", [])):
        return False
    with Image.open(file) as image:
        return min(image.size) >= 224


def _spread(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some of the rows, from all over the list."""
    return rows[:: len(rows) // PICTURES][:PICTURES]


def _troubles(pictures: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One of each: cut short, empty, tiny, saved once more and smaller."""
    photo = next(pictures / row["file"] for row in rows if row["file"].endswith(".jpg"))
    whole = photo.read_bytes()
    (pictures / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "empty.png").write_bytes(b"")
    with Image.open(photo) as image:
        upright = image.convert("RGB")
    upright.resize((60, 60)).save(pictures / "tiny.png")
    upright.resize((upright.width * 9 // 10, upright.height * 9 // 10)).save(pictures / "again.png")
    names = ("cut.jpg", "empty.png", "tiny.png", "again.png")
    return [{"file": name, "captions": [{"text": f"The picture {name}.", "lang": "en"}]} for name in names]


def config_of(sample: Path, store: str, **changes: Any) -> dict[str, Any]:
    """A config as a person or the UI would write it; every caption that can be scored is accepted."""
    return {
        "dataset": "sample",
        "store": store,
        "source": {"kind": "folder", "path": str(sample / "pictures"), "captions": str(sample / "captions.jsonl")},
        "shard_size": SHARD_SIZE,
        "caption": {"policy": "none"},
        "quality": {"model": "starter", "pretrained": None, "accept_above": -1.0, "reject_below": -1.0},
        "export": {"samples_per_shard": SHARD_SIZE},
        # Charts take seconds; test_prefect.py has a build that makes them.
        "report": False,
        **changes,
    }


def write_config(file: Path, config: Mapping[str, Any]) -> Path:
    """The config as a file for the command line."""
    file.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    return file


def build_here(config: Mapping[str, Any], api: str) -> dict[str, Any]:
    """Run the flow in this process, against the server at `api`; returns its funnel."""
    from flows.build_dataset import build_dataset

    with used_here(api):
        state: Any = build_dataset(parse_config(dict(config)), return_state=True)
    if not state.is_completed():
        raise RuntimeError(f"{state.name}: {state.message}")
    told: dict[str, Any] = state.result()
    return told


def export_of(config: Mapping[str, Any]) -> dict[str, bytes]:
    """Every file of the newest run's export, by its path below the dataset."""
    from vlmdata.checkpoint import Dataset
    from vlmdata.runs import existing_run

    parsed: BuildConfig = parse_config(dict(config))
    store = open_store(parsed.store)
    end = existing_run(Dataset(parsed.store, parsed.dataset)).read("end") or {}
    prefix = str(end["export"]).removeprefix(store.url).strip("/")
    return {path: store.get(path) for path in store.list(prefix)}


def shards_in(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files that a trainer reads."""
    return {path: data for path, data in files.items() if path.endswith((".tar", ".parquet"))}
