"""Weights that cannot be had."""

from __future__ import annotations

import logging
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.utils._http as hub
import pytest

from vlmdata.errors import ConfigError
from vlmdata.models.load import load_parts
from vlmdata.models.source import resolve

NOBODY = "http://127.0.0.1:9"


def test_weights_that_cannot_be_had_are_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", NOBODY)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", NOBODY + "/{repo_id}/{filename}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.time, "sleep", lambda _: None)
    with pytest.raises(ConfigError, match=r"neither in the cache nor to be had from .*; give a local weights") as told:
        load_parts(resolve("ViT-B-32", "openai"))
    assert "\n" not in str(told.value)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert capfd.readouterr() == ("", "")
    logging.getLogger("huggingface_hub").warning("heard again")
    assert "heard again" in caplog.messages
