"""What the documents say is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import yaml

from vlmdata.cli import app
from vlmdata.config import parse_config

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"]
COMMANDS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text(name)) if "://" not in link]
    missing = [link for link in links if not (ROOT / name).parent.joinpath(link.split("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_named_is_one(name: str) -> None:
    named = set(re.findall(r"(?:^|`)vlmdata ([a-z-]+)", text(name), re.MULTILINE))
    assert named <= COMMANDS


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_named_in_the_project_is_there(name: str) -> None:
    rooms = r"(?:vlmdata|flows|tasks|expectations|deployments|tests|docker|benchmarks|examples|docs)"
    named = set(re.findall(rf"`({rooms}/[\w./-]+\.\w+)`", text(name)))
    assert not [path for path in named if not (ROOT / path).exists()]


def test_the_readme_s_config_is_valid() -> None:
    block = re.search(r"```yaml\n(.*?)```", text("README.md"), re.DOTALL)
    assert block
    assert parse_config(yaml.safe_load(block[1])).dataset == "my-set"


def test_the_template_is_valid_and_names_every_section() -> None:
    raw = yaml.safe_load((ROOT / "vlmdata/template.yaml").read_text(encoding="utf-8"))
    assert set(raw) == set(type(parse_config(raw)).model_fields)


def test_every_list_that_contributors_are_sent_to_is_in_the_file_named() -> None:
    rows = [line.split("|")[3] for line in text("CONTRIBUTING.md").splitlines() if line.startswith("| a")]
    pairs = [pair for row in rows for pair in re.findall(r"`(\w+)(?:\(\))?` in `([\w/]+\.py)`", row)]
    assert len(pairs) >= 4
    assert not [(word, path) for word, path in pairs if word not in text(path)]


def test_every_reason_code_in_the_readme_is_in_the_code() -> None:
    stages = [line for line in text("README.md").splitlines() if line.startswith("| `0")]
    codes = {code for line in stages for code in re.findall(r"`([a-z_]+)`", line.split("|")[3])}
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "vlmdata").rglob("*.py"))
    assert len(codes) >= 10
    # A caption's failure is named by its class.
    words = {code.removeprefix("caption_") if code.startswith("caption_") else code for code in codes}
    assert not [word for word in words if f'"{word}"' not in source]
