"""What people have written down elsewhere stays true: config keys, commands, exit codes, the shape of status."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from vlmdata import errors
from vlmdata.checkpoint import Dataset
from vlmdata.cli import app
from vlmdata.config import BuildConfig
from vlmdata.config_reading import load_config, parse_config
from vlmdata.runs import start_run
from vlmdata.status import status

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
CONFIG = GOLDEN / "config.yaml"
PROMISED: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
SOURCES = [
    {"kind": "folder", "path": "p", "captions": "c.csv"},
    {"kind": "folder", "path": "p"},
    {"kind": "webdataset", "path": "p"},
    {"kind": "parquet", "path": "p"},
]
COMMANDS = {
    "init": {"directory"},
    "build": {"config", "--store", "--engine", "--to", "--set"},
    "status": {"--store", "--dataset", "--json"},
    "explain": {"sample_id", "--store", "--dataset"},
    "demo": set(),
    "train": {"config", "--preset", "--data", "--out", "--set"},
    "compare": {"a", "b", "--preset", "--out"},
    "caption-server": {"--host", "--port"},
}
EXIT_CODES = {"VlmdataError": 1, "UserError": 2, "GateFailed": 3, "BuildIncomplete": 4}


def test_the_promised_config_is_valid_and_means_what_it_says(tmp_path: Path) -> None:
    config = load_config(CONFIG)
    beside = str(CONFIG.parent)
    assert config.store == f"{beside}/elsewhere"
    assert (config.dataset, config.shard_size, config.engine) == ("stamps", 500, "processes")
    for section in ("filter", "dedup", "caption"):
        assert getattr(config, section).model_dump(include=set(PROMISED[section])) == PROMISED[section]
    quality = config.quality.model_dump()
    assert {name: quality[name] for name in PROMISED["quality"] if name != "languages"} == {
        name: value for name, value in PROMISED["quality"].items() if name != "languages"
    }
    promised = {**PROMISED["quality"]["languages"]["zh"], "reject_below": "auto"}
    assert {name: quality["languages"]["zh"][name] for name in promised} == promised
    assert (config.export.formats, config.export.path) == (("parquet",), f"{beside}/out")


def test_the_promised_defaults() -> None:
    config = parse_config({"dataset": "stamps", "source": SOURCES[1]})
    assert (config.store, config.shard_size, config.engine) == ("./store", 1000, "threads")
    rule = config.filter
    assert (rule.min_side, rule.max_aspect_ratio, rule.max_pixels, rule.decode_timeout_s) == (
        224,
        None,
        100_000_000,
        20,
    )
    assert config.dedup.max_distance == 8
    caption = config.caption
    assert (caption.policy, caption.provider, caption.api_key_env) == ("missing", "openai", "OPENAI_API_KEY")
    assert (caption.max_retries, caption.concurrency) == (3, 16)
    quality = config.quality
    assert (quality.model, quality.pretrained, quality.languages) == ("ViT-B-32", "openai", {})
    assert (quality.accept_above, quality.reject_below) == ("auto", "auto")
    assert (config.export.formats, config.export.path) == (("webdataset", "parquet"), None)


@pytest.mark.parametrize("source", SOURCES)
def test_the_promised_sources(source: dict[str, str]) -> None:
    assert parse_config({"dataset": "x", "source": source}).source.kind == source["kind"]


@pytest.mark.parametrize("engine", ["threads", "processes", "ray"])
def test_the_promised_engines(engine: str) -> None:
    assert parse_config({"dataset": "x", "source": SOURCES[1], "engine": engine}).engine == engine


def test_every_promised_key_is_documented() -> None:
    schema = BuildConfig.model_json_schema()
    sections = {name: definition["properties"] for name, definition in schema["$defs"].items()}
    for key in PROMISED:
        assert key in schema["properties"]
    for section, definition in (("filter", "FilterConfig"), ("caption", "CaptionConfig"), ("quality", "QualityConfig")):
        for key in PROMISED[section]:
            assert sections[definition][key]["description"]


def test_commands_and_their_options() -> None:
    group: Any = typer.main.get_command(app)
    for name, promised in COMMANDS.items():
        parameters = group.commands[name].params
        offered = {option for one in parameters for option in (one.opts if one.opts[0].startswith("-") else [one.name])}
        assert promised <= offered, name


def test_exit_codes() -> None:
    for name, code in EXIT_CODES.items():
        assert getattr(errors, name).exit_code == code
    below = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, errors.UserError)]
    assert {kind.exit_code for kind in below} == {2}


def test_the_shape_of_status(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "stamps")
    start_run(dataset, parse_config({"dataset": "stamps", "source": SOURCES[1]}))
    told = status(dataset)
    assert told["dataset"] == "stamps"
    assert list(told["stages"]) == ["00_raw", "01_filtered", "02_captioned", "03_quality_checked", "04_final"]
    counts = {"in", "kept", "rejected", "held", "failed"}
    for stage in told["stages"].values():
        assert {*counts, "rejection_rate", "mean_score", "reasons", "captions"} <= set(stage)
        assert counts <= set(stage["captions"])
        assert isinstance(stage["reasons"], dict)
