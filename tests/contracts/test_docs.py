"""What the documents say is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml

from vlmdata.captioning.money import check_money
from vlmdata.captioning.plan import CaptionPlan
from vlmdata.captioning.prompts import load_prompt, shipped_prompts
from vlmdata.captioning.questions import Asker
from vlmdata.cli import app
from vlmdata.config import BuildConfig, NetworkConfig, PixelsConfig
from vlmdata.config_reading import load_config, parse_config
from vlmdata.console import print_plan
from vlmdata.export.pixels import Change
from vlmdata.failures import CLASSES
from vlmdata.ingest import shards
from vlmdata.ingest.web import trouble
from vlmdata.training.batch import batch_of
from vlmdata.training.config import TRAIN, TrainConfig

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"),
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))),
]
PROFILES = sorted((ROOT / "deployments/profiles").glob("*.yaml"))
TEMPLATE = "vlmdata/template.yaml"
LEAST: dict[str, Any] = {"dataset": "my-set", "source": {"kind": "folder", "path": "./pictures"}}
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
    named = set(re.findall(r"(?:^(?:\$ )?|`)vlmdata ([a-z-]+)", text(name), re.MULTILINE))
    assert named <= COMMANDS


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_named_in_the_project_is_there(name: str) -> None:
    rooms = r"(?:vlmdata|flows|tasks|expectations|deployments|tests|docker|benchmarks|examples|docs)"
    named = set(re.findall(rf"`({rooms}/[\w./-]+\.\w+)`", text(name)))
    assert not [path for path in named if not (ROOT / path).exists()]


def blocks(name: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text(name), re.DOTALL)


def test_the_readme_s_config_is_valid() -> None:
    assert parse_config(yaml.safe_load(blocks("README.md", "yaml")[0])).dataset == "my-set"


@pytest.mark.parametrize("name", ["README.md", "docs/captions.md", "docs/pixels.md"])
def test_every_piece_of_a_config_is_valid(name: str) -> None:
    found = [parse_config({**LEAST, **yaml.safe_load(block)}) for block in blocks(name, "yaml")]
    assert len(found) >= 2
    for config in found:
        check_money(config.caption)


def test_the_training_that_is_shown_is_a_config_and_its_keys_are_keys() -> None:
    [shown] = blocks("docs/training.md", "yaml")
    config = TRAIN.parse(yaml.safe_load(shown))
    assert batch_of(config, 1).effective == 4096
    table = text("docs/training.md").partition("| rule |")[2].partition("\n\n")[0]
    named = [key for row in table.splitlines()[2:] for key in re.findall(r"`(\w+)`", row.split("|")[2])]
    assert len(named) > 10
    assert set(named) <= set(TrainConfig.model_fields)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_config_key_named_is_one(name: str) -> None:
    named = re.findall(r"`((?:caption|export|quality|filter|dedup)(?:\.[a-z_]+)+)[:`]", text(name))
    for key in named:
        section: Any = BuildConfig
        for part in key.split("."):
            assert part in section.model_fields, key
            section = section.model_fields[part].annotation


def test_the_template_is_valid_and_names_every_section() -> None:
    raw = yaml.safe_load(text(TEMPLATE))
    assert set(raw) == set(type(parse_config(raw)).model_fields)


def test_what_the_template_has_commented_are_all_the_other_keys_with_their_defaults() -> None:
    raw = yaml.safe_load(re.sub(r"^  # (?=[a-z_0-9]+: )", "  ", text(TEMPLATE), flags=re.MULTILINE))
    config, plain = parse_config(raw), parse_config(yaml.safe_load(text(TEMPLATE)))
    for section in ("network", "caption", "gates"):
        assert set(raw[section]) == set(type(getattr(config, section)).model_fields)
    assert set(raw["quality"]) == set(type(config.quality).model_fields) - {"device"}
    assert set(raw["export"]) == set(type(config.export).model_fields) - {"samples_per_shard"}
    assert set(raw["export"]["pixels"]) == set(type(config.export.pixels).model_fields)
    assert set(raw["export"]["captions"]) == set(type(config.export.captions).model_fields)
    assert config == plain


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_can_be_planned(path: Path) -> None:
    config = load_config(path)
    check_money(config.caption)
    assert Asker.of(config.caption).question(small=False).prompt


def test_every_change_of_a_picture_is_told_of() -> None:
    told = text("docs/pixels.md").partition("`changes` in the export")[2].partition("\n\n")[0]
    assert re.findall(r"`([a-z_]+)`", told.partition(":")[2]) == list(get_args(Change))


def test_every_way_to_ask_for_pixels_is_told_of() -> None:
    for key, field in PixelsConfig.model_fields.items():
        words = [word for word in get_args(field.annotation) if isinstance(word, str)]
        assert not [word for word in [key, *words] if word not in text("docs/pixels.md")]


def test_the_prompts_shipped_are_those_that_are_told_of() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (?:one|a|phrases)\b", text("docs/captions.md"), re.MULTILINE)
    assert sorted(rows) == shipped_prompts()


def test_the_prompt_that_is_shown_can_be_asked(tmp_path: Path) -> None:
    [shown] = blocks("docs/captions.md", "markdown")
    file = tmp_path / "mine.md"
    file.write_text(shown, encoding="utf-8")
    assert "in German" in load_prompt(str(file)).render("de", low_resolution=False)


def test_every_class_of_failure_is_told_of() -> None:
    table = text("docs/captions.md").partition("| class |")[2]
    assert tuple(re.findall(r"^\| `([a-z]+)` \|", table, re.MULTILINE))[: len(CLASSES)] == CLASSES


def test_the_plan_in_the_readme_is_what_the_terminal_prints(capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.search(r"\$ vlmdata plan [^\n]*\n(.*?)```", text("README.md"), re.DOTALL)
    priced = next(block for block in blocks("README.md", "yaml") if "prices" in block)
    config = parse_config({**LEAST, **yaml.safe_load(priced)}).caption
    plan = CaptionPlan(
        pictures=18,
        requests=18,
        input_tokens=30_302,
        output_tokens=1_080,
        cost=1.7311,
        cost_at_worst=1.9951,
        minutes=0.04,
        paid_cost=0.0,
        max_cost=config.max_cost,
        max_requests=config.max_requests,
    )
    print_plan(plan, config)
    assert shown
    assert capsys.readouterr().out == shown[1]


def test_every_option_named_beside_a_command_is_its_own() -> None:
    commands: Any = typer.main.get_command(app)
    for name in DOCUMENTS:
        for command, rest in re.findall(r"^(?:\$ )?vlmdata ([a-z-]+)([^\n#]*)", text(name), re.MULTILINE):
            offered = {option for one in commands.commands[command].params for option in one.opts}
            assert set(re.findall(r"(?<= )--[a-z0-9-]+", rest)) <= offered, (name, command)


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


def reasons_in(tree: ast.AST) -> set[str]:
    """Reason codes that are handed to `Trouble` or `Lost` as they stand."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"Trouble", "Lost"}:
            place = 1 if node.func.id == "Trouble" else 0
            code = node.args[place] if len(node.args) > place else None
            found |= {code.value} if isinstance(code, ast.Constant) else set()
    return {str(code) for code in found}


def test_every_reason_of_a_download_is_told_of() -> None:
    table = text("docs/urls.md").partition("| reason |")[2].partition("```")[0]
    reasons = [row.split("|")[1] for row in table.splitlines() if "|" in row]
    told = {code for cell in reasons for code in re.findall(r"`([a-z_<>]+)`", cell)}
    files = (ROOT / "vlmdata" / "ingest" / "web").glob("*.py")
    given = set().union(*(reasons_in(ast.parse(file.read_text(encoding="utf-8"))) for file in files))
    given |= {code for _, _, code, _ in trouble._ERRORS} | set(shards._REFUSED)
    # Told by a name that is worked out.
    worked_out = {"http_<status>", "host_down", "host_busy", "x_robots_tag"}
    assert told - worked_out == given and worked_out <= told


def test_the_config_of_a_list_is_valid() -> None:
    [shown] = [yaml.safe_load(block) for block in blocks("docs/urls.md", "yaml")]
    config = parse_config(shown)
    assert config.source.kind == "urls"
    whole = re.sub(r"^  # (?=[a-z_]+: )", "  ", blocks("docs/urls.md", "yaml")[0], flags=re.MULTILINE)
    assert set(yaml.safe_load(whole)["source"]) == set(type(config.source).model_fields)


def test_the_limits_of_downloads_are_told_with_their_defaults() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| ([\d., MB]+) \|", text("docs/urls.md"), re.MULTILINE)
    told = {
        name: float(value.removesuffix(" MB")) * (1e6 if "MB" in value else 1)
        for names, values in rows
        for name, value in zip(re.findall(r"[a-z_]+", names), values.split(", "), strict=True)
    }
    assert told == {name: getattr(NetworkConfig(), name) for name in told} and len(told) == 9
