"""What ships beside the code, as files: profiles, deployments, compose; true without starting anything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.processes import ROOT
from vlmdata.config import BuildConfig
from vlmdata.config_reading import load_config, parse_config

PROFILES = sorted((ROOT / "deployments" / "profiles").glob("*.yaml"))
PREFECT_FILE = ROOT / "deployments" / "prefect.yaml"
COMPOSE = ROOT / "docker" / "compose.yaml"


def _yaml(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def test_there_are_profiles() -> None:
    assert {profile.stem for profile in PROFILES} >= {"starter", "vit_b_32_openai", "multilingual"}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.stem)
def test_a_profile_is_a_valid_config(profile: Path) -> None:
    config = load_config(profile)
    assert config.store == str(ROOT / "store")
    assert config.quality.pretrained or config.quality.model == "starter"


def test_the_starter_profile_finds_the_sample() -> None:
    source: Any = load_config(ROOT / "deployments" / "profiles" / "starter.yaml").source
    assert Path(source.path).is_dir() and Path(source.captions).is_file()


def test_the_nightly_deployment_has_a_schedule_and_a_valid_config() -> None:
    deployments = {deployment["name"]: deployment for deployment in _yaml(PREFECT_FILE)["deployments"]}
    assert deployments.keys() == {"build-dataset", "nightly-ingest", "train"}
    assert [name for name, deployment in deployments.items() if "schedules" in deployment] == ["nightly-ingest"]
    nightly = deployments["nightly-ingest"]
    assert [schedule["cron"] for schedule in nightly["schedules"]] == ["0 2 * * *"]
    config = nightly["parameters"]["config"]
    assert isinstance(parse_config(config), BuildConfig)
    assert (ROOT / config["source"]["path"]).is_dir()


@pytest.mark.parametrize("file", [PREFECT_FILE, *PROFILES], ids=lambda file: file.stem)
def test_no_path_of_one_machine(file: Path) -> None:
    assert not [value for value in _texts(_yaml(file)) if value.startswith(("/", "~"))]


def test_deployments_enter_by_module() -> None:
    for deployment in _yaml(PREFECT_FILE)["deployments"]:
        name = deployment["name"].replace("-", "_")
        assert deployment["entrypoint"] == f"flows.{name}.{name}"


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def test_compose_has_the_four_services_and_waits_for_health() -> None:
    services = _yaml(COMPOSE)["services"]
    assert services.keys() >= {"postgres", "prefect", "s3", "worker"}
    for name, service in services.items():
        assert service.get("healthcheck") or service.get("restart") == "no", name
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services
            if how["condition"] == "service_healthy":
                assert services[needed]["healthcheck"]["test"]


def test_compose_has_no_secret_of_its_own() -> None:
    """Every secret is a variable that must be set: `${NAME:?…}`, no default."""
    text = COMPOSE.read_text(encoding="utf-8")
    settings = re.findall(r"^\s*(\w*(?:PASSWORD|SECRET|ACCESS_KEY|API_KEY)\w*):\s*(.+)$", text, flags=re.MULTILINE)
    assert settings
    for name, value in settings:
        assert re.fullmatch(r"\$\{\w+(:\?[^}]+|:-)\}", value.strip('"')), name
    assert not re.findall(r"://[^$\s{]+:[^$\s{]+@", text)
