"""Weights & Biases, where it is installed (`vlmdata[wandb]`): what it writes is what the run's own log says."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training.conftest import Configured
from vlmdata.errors import ConfigError
from vlmdata.training.log import open_trackers, read_figures
from vlmdata.training.train import train

pytestmark = pytest.mark.skipif(find_spec("wandb") is None, reason="vlmdata[wandb] is not installed")
_BLOCK, _HEADER = 32_768, 7


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody is logged in, and nothing that was set up on this machine counts."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def records(file: Path) -> Iterator[Any]:
    """Of a .wandb file: LevelDB's log format behind seven bytes, a record a message."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = file.read_bytes(), _HEADER, b""
    assert data.startswith(b":W&B")
    while at + _HEADER <= len(data):
        if _BLOCK - at % _BLOCK < _HEADER:
            at += _BLOCK - at % _BLOCK
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + _HEADER : at + _HEADER + size]
        at += _HEADER + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def logged(out: Path) -> tuple[Any, list[dict[str, Any]]]:
    """The run and its history; wandb writes in a process of its own, which may lag behind."""
    (file,) = out.glob("wandb/offline-run-*/*.wandb")
    for _ in range(100):
        found = list(records(file))
        if found and found[-1].WhichOneof("record_type") in ("exit", "footer"):
            break
        time.sleep(0.1)
    history = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.WhichOneof("record_type") == "history"
    ]
    return next(record.run for record in found if record.WhichOneof("record_type") == "run"), history


@pytest.mark.parametrize("workers", [0, 2])
def test_every_step_and_evaluation_is_written_and_nothing_is_said(
    configured: Configured, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    config = configured(trackers=["wandb"], workers=workers)
    story = train(config)
    run, history = logged(Path(config.out))
    assert (run.run_id, run.project) == (story["run"], "vlmdata")
    assert {"config", "seed", "data", "git_commit", "libraries", "batch"} <= {item.key for item in run.config.update}
    lines = read_figures(Path(config.out))
    for kind, name in (("step", "loss"), ("step", "lr"), ("evaluation", "image_to_text_r10")):
        theirs = [(row["_step"], row[f"{kind}/{name}"]) for row in history if f"{kind}/{name}" in row]
        assert theirs == [(line["step"], line[name]) for line in lines if line["kind"] == kind]
    assert "wandb" not in "".join(capfd.readouterr())


def test_without_a_key_it_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ConfigError, match=r"trackers: wandb does not start \(.+\); set WANDB_MODE=offline") as caught:
        open_trackers(["wandb"], tmp_path, 0, {"run": "abc"})
    assert "\n" not in str(caught.value)


def test_a_key_is_written_nowhere(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "0123456789abcdef" * 2 + "deadbeef"
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = configured(trackers=["wandb"], epochs=1)
    train(config)
    logged(Path(config.out))
    files = [path for path in Path(config.out).rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if key.encode() in path.read_bytes()] == []
