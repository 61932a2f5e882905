"""The demo's verdict on what was planted in its sample: caught for the right reason, or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from vlmdata.cli import app
from vlmdata.demo import config_of, expected_troubles, next_commands
from vlmdata.errors import ConfigError


def verdict(story: Any, folder: Path, **trouble: Any) -> str:
    planted = {"why": "for the test", "level": "sample", **trouble}
    (folder / "troubles.json").write_text(json.dumps([planted]), encoding="utf-8")
    lines = expected_troubles(story.config, folder)
    [line] = [line for line in lines if planted["file"] in line]
    return line.split()[0]


@pytest.mark.parametrize(
    ("file", "code", "level"),
    [
        ("small.png", "too_small", "sample"),
        ("broken.png", "truncated", "sample"),
        ("twin.png", "near_duplicate", "sample"),
        ("wrong.png", "misaligned", "sample"),
        ("gone.png", "missing_file", "sample"),
        ("good.png", "empty_caption", "caption"),
        ("good.png", None, "sample"),
    ],
)
def test_what_was_caught_for_its_reason(story: Any, tmp_path: Path, file: str, code: str | None, level: str) -> None:
    assert verdict(story, tmp_path, file=file, code=code, level=level) == "caught"


@pytest.mark.parametrize(
    ("file", "code", "level"),
    [
        ("good.png", "too_small", "sample"),
        ("small.png", "truncated", "sample"),
        ("small.png", None, "sample"),
        ("good.png", "caption_too_long", "caption"),
    ],
)
def test_what_was_not(story: Any, tmp_path: Path, file: str, code: str | None, level: str) -> None:
    assert verdict(story, tmp_path, file=file, code=code, level=level) == "MISSED"


def test_of_two_twins_either_may_go(story: Any, tmp_path: Path) -> None:
    either = {"code": "near_duplicate", "of": "twin.png", "either": True}
    assert verdict(story, tmp_path, file="good.png", **either) == "caught"
    assert verdict(story, tmp_path, file="good.png", **{**either, "either": False}) == "MISSED"


def test_the_demos_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no captions\.jsonl there"):
        config_of(tmp_path, tmp_path)
    (tmp_path / "captions.jsonl").touch()
    config = config_of(tmp_path, tmp_path / "demo")
    assert (config.store, config.quality.model) == (str(tmp_path / "demo/store"), "starter")
    assert config.source.path == str(tmp_path / "pictures")


def test_what_to_try_next_can_be_typed(tmp_path: Path) -> None:
    sample = Path(__file__).resolve().parents[2] / "examples" / "stamps"
    lines = [line.split() for line in next_commands(config_of(sample, tmp_path), sample) if line.startswith("  ")]
    commands: Any = typer.main.get_command(app)
    assert [words[1] for words in lines] == ["report", "explain", "init"]
    for words in lines:
        offered = {option for one in commands.commands[words[1]].params for option in one.opts}
        assert {word for word in words if word.startswith("--")} <= offered
