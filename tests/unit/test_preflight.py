"""What can be known to fail is said before anything is done."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlmdata.config_reading import parse_config
from vlmdata.errors import ConfigError, StoreError
from vlmdata.preflight import preflight


def config(folder: Path, **changes: Any) -> Any:
    base = {"dataset": "set", "store": str(folder / "store"), "source": {"kind": "folder", "path": "/p"}}
    return parse_config({**base, "quality": {"model": "starter", "pretrained": None}, **changes})


def test_what_can_work_passes_and_leaves_nothing(tmp_path: Path) -> None:
    preflight(config(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_ray_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"install vlmdata\[ray\]"):
        preflight(config(tmp_path, engine="ray"))


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be written"):
        preflight(config(tmp_path))


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ViT-B-23"):
        preflight(config(tmp_path, quality={"model": "ViT-B-23"}))


def test_no_model_is_loaded(tmp_path: Path) -> None:
    raw = {"dataset": "set", "store": str(tmp_path), "source": {"kind": "folder", "path": "/p"}}
    script = (
        "import sys; from vlmdata.config_reading import parse_config; from vlmdata.preflight import preflight\n"
        f"preflight(parse_config({raw!r}))\n"
        "sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
