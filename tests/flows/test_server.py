"""Which Prefect server a build uses is what Prefect's own profiles say, read without Prefect."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.server import _server_of_profile, prefect_server
from vlmdata.errors import ConfigError

URL = "http://127.0.0.1:4200/api"
TWO = f"""
active = "plain"
[profiles.plain]
PREFECT_LOGGING_LEVEL = "INFO" # PREFECT_API_URL = "{URL}"
[profiles.mine]
PREFECT_API_URL = "{URL}"
[profiles.empty]
PREFECT_API_URL = ""
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("profile", "server"), [(None, None), ("", None), ("mine", URL), ("empty", None), ("unknown", None)]
)
def test_only_the_active_profile_counts(
    home: Path, monkeypatch: pytest.MonkeyPatch, profile: str | None, server: str | None
) -> None:
    (home / "profiles.toml").write_text(TWO)
    if profile is not None:
        monkeypatch.setenv("PREFECT_PROFILE", profile)
    assert _server_of_profile() == server


def test_the_profile_that_the_file_calls_active(home: Path) -> None:
    (home / "profiles.toml").write_text(TWO.replace('active = "plain"', 'active = "mine"'))
    assert _server_of_profile() == URL


def test_a_file_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "else.toml").write_text(TWO.replace('active = "plain"', 'active = "mine"'))
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(home / "else.toml"))
    assert _server_of_profile() == URL


@pytest.mark.parametrize("text", ["", "profiles = 3", 'active = 3\n[profiles]\nmine = "x"', "active = 'mine'"])
def test_no_server_where_none_is_named(home: Path, text: str) -> None:
    assert _server_of_profile() is None
    (home / "profiles.toml").write_text(text)
    assert _server_of_profile() is None


@pytest.mark.parametrize("content", [b"[[not toml", b"\xff"])
def test_a_file_that_is_not_toml_is_one_line(home: Path, content: bytes) -> None:
    (home / "profiles.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"profiles\.toml: cannot be read") as error, prefect_server():
        pass
    assert "\n" not in str(error.value)


def test_a_profile_s_server_that_is_not_there_is_one_line(home: Path) -> None:
    (home / "profiles.toml").write_text('active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://127.0.0.1:9/api"')
    with pytest.raises(ConfigError, match="no Prefect server answers there"), prefect_server():
        pass
