"""The server that a command starts for itself."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest

from flows.server import prefect_server

pytestmark = pytest.mark.integration


def test_files_of_the_working_folder_are_no_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """People keep pictures, scripts and folders called `datasets` where they build."""
    for name in ("queue", "fsspec", "uvicorn"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is mine')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with prefect_server(), urllib.request.urlopen(f"{os.environ['PREFECT_API_URL']}/health", timeout=10) as answer:
        assert answer.status == 200
