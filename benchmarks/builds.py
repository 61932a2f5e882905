"""Builds that the benchmarks run: a source of pictures, its config, and the stages in a plain loop."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vlmdata.checkpoint import Shard
from vlmdata.config import BuildConfig
from vlmdata.config_reading import parse_config
from vlmdata.layout import Stage

ROOT = Path(__file__).resolve().parents[1]
Row = tuple[str, float, str, str]
"""Name, measured ratio, its bound ("" if it has none), remark."""


def write_source(folder: Path, files: Sequence[Path]) -> None:
    """Copy pictures into `folder`/pictures, with a caption for each in `folder`/captions.jsonl."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    lines = []
    for number, file in enumerate(files):
        shutil.copy(file, pictures / file.name)
        lines.append(json.dumps({"file": file.name, "caption": f"a photograph, number {number} of many"}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_config(folder: Path, name: str, shard_size: int) -> Path:
    """A config over `folder`'s source, with a store of its own; `starter` judges and every caption passes."""
    config = {
        "dataset": "photos",
        "store": f"./{name}",
        "source": {"kind": "folder", "path": "./pictures", "captions": "./captions.jsonl"},
        "shard_size": shard_size,
        "caption": {"policy": "none"},
        # Each caption goes the whole way: what is measured is the work, not the model's opinion.
        "quality": {
            "model": "starter",
            "pretrained": None,
            "accept_above": -1.0,
            "reject_below": -1.0,
            "retrieval": {"max_miss_rate": 1.0},
        },
        # A file of the export is held in memory too: of the same size whatever the number of shards.
        "export": {"samples_per_shard": shard_size},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def parsed(path: Path) -> BuildConfig:
    """The config with its paths absolute."""
    from vlmdata.config_reading import load_config

    return load_config(path)


def plain_config(folder: Path, shard_size: int) -> BuildConfig:
    """A config without captions or a model, for the stages before them."""
    source = {"kind": "folder", "path": str(folder / "pictures"), "captions": str(folder / "captions.jsonl")}
    raw = {"dataset": "photos", "store": str(folder / "store"), "source": source, "shard_size": shard_size}
    return parse_config(raw)


def seconds_of(*arguments: str) -> tuple[float, str]:
    """Wall seconds of `python ARGUMENTS` from its start to its end, and what it printed.

    Raises:
        RuntimeError: it failed; the end of what it said is in the message.
    """
    quiet = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    environment = {**os.environ, **quiet, "TOKENIZERS_PARALLELISM": "false"}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    taken = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended {done.returncode}: {(done.stderr or done.stdout)[-800:]}")
    return taken, done.stdout


def run_in_a_loop(config: BuildConfig) -> dict[str, Any]:
    """All five stages and their gates, one shard after the other: what the flow does, without Prefect."""
    from vlmdata import runs
    from vlmdata.captioning.shards import caption_shard
    from vlmdata.checkpoint import Dataset
    from vlmdata.export.finish import finish_export
    from vlmdata.export.plan import plan_export
    from vlmdata.export.shards import export_shard
    from vlmdata.filtering.duplicates import find_duplicates
    from vlmdata.filtering.pool import Terms
    from vlmdata.filtering.shards import filter_shard
    from vlmdata.health.measure import measure_health
    from vlmdata.health.saved import save
    from vlmdata.ingest.listing import list_source
    from vlmdata.ingest.shards import ingest_shard
    from vlmdata.measure.facts import measure_shard
    from vlmdata.preflight import preflight
    from vlmdata.quality.bands import judge_shard
    from vlmdata.quality.pairs import measure_pairs
    from vlmdata.quality.retrieval import measure_retrieval
    from vlmdata.quality.scores import score_shard
    from vlmdata.quality.worst_page import worst_page
    from vlmdata.status import describe_run

    preflight(config)
    dataset = Dataset(config.store, config.dataset)
    listing = list_source(dataset, config)
    run = runs.start_run(dataset, config)

    def close(stage: Stage, shards: list[Shard]) -> list[Shard]:
        from expectations.gate import check_stage

        run.stage_done(runs.report(dataset, stage, shards))
        check_stage(dataset, shards, stage, config, run)
        return shards

    shards = close(Stage.RAW, [ingest_shard(dataset, shard, config) for shard in listing])
    shards = [measure_shard(dataset, shard, config.filter) for shard in shards]
    shards = find_duplicates(dataset, shards, Terms(config.filter, config.dedup))
    shards = close(Stage.FILTERED, [filter_shard(dataset, shard, config.filter, config.dedup) for shard in shards])
    shards = close(Stage.CAPTIONED, [caption_shard(dataset, shard, config.caption) for shard in shards])
    shards = [score_shard(dataset, shard, config.quality) for shard in shards]
    shards = close(Stage.CHECKED, [judge_shard(dataset, shard, config.quality) for shard in shards])
    measure_pairs(dataset, shards, config.quality)
    found = measure_retrieval(dataset, shards, config.quality)
    run.record("retrieval", found.record())
    run.attach("retrieval.html", worst_page(dataset, shards, found))
    shards = plan_export(dataset, shards, config.export)
    shards = close(Stage.FINAL, [export_shard(dataset, shard, config.export) for shard in shards])
    save(run, measure_health(run))
    finish_export(dataset, shards, config.export, {"stages": describe_run(run)["stages"]})
    run.finish(runs.COMPLETED, "")
    return describe_run(run)
