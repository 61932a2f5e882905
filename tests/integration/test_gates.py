"""Gates over a real build: judged, written down, shown on a page that opens without a network, and obeyed."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from expectations.docs import write_docs
from expectations.gate import check_run, check_stage
from expectations.verdict import recorded
from tests.integration.conftest import Built
from tests.integration.prefect_server import PrefectServer
from tests.integration.sample import config_of, write_config
from tests.integration.test_exit_codes import build
from vlmdata.checkpoint import Dataset
from vlmdata.config import BuildConfig, GatesConfig
from vlmdata.config_reading import parse_config
from vlmdata.errors import GateFailed
from vlmdata.health.measure import measure_health
from vlmdata.health.saved import SCORES_PNG, health_path
from vlmdata.layout import GATES_PAGE, Stage, run_file
from vlmdata.quality.retrieval import measure_retrieval
from vlmdata.runs import Run, existing_run, start_run

pytestmark = pytest.mark.integration

CHROMIUM = Path("/usr/bin/chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
IMPOSSIBLE = {"at_least": 2.0}


def asked(built: Built, **gates: Any) -> tuple[BuildConfig, Run]:
    """The config of a build with other gates."""
    config = parse_config({**built.config, "gates": gates})
    return config, existing_run(Dataset(config.store, config.dataset))


def test_a_real_run_keeps_every_rule_and_the_figures_that_it_is_asked_for(undisturbed: Built, tmp_path: Path) -> None:
    bounds = {"health": {"mean_score": IMPOSSIBLE}, "languages": {"en": {"at_least": 0.1}}}
    config, run = asked(undisturbed, **bounds, recall_at_10=IMPOSSIBLE)
    told = {stage: run.stage(stage) for stage in Stage}
    beside = start_run(Dataset(str(tmp_path), "verdicts"), config)
    for stage, report in told.items():
        assert report is not None
        assert check_stage(run.dataset, report.shards, stage, config, beside) == []
    health = measure_health(run)
    checked = told[Stage.CHECKED]
    assert checked is not None
    retrieval = measure_retrieval(run.dataset, checked.shards, config.quality)
    with pytest.raises(GateFailed, match=r"health\.mean_score"):
        check_run(beside, config, health, retrieval)
    broken = {verdict.rule: verdict for verdict in recorded(beside) if not verdict.held}
    # Of thirty pictures R@10 says nothing that should stop a run.
    assert {name: verdict.severity for name, verdict in broken.items()} == {
        "health.mean_score": "stop",
        "recall_at_10": "warn",
    }
    assert write_docs(beside) is not None


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium, if it is there."""
    if not CHROMIUM.exists():
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield running
        running.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_without_a_network_and_can_be_read(
    undisturbed: Built, browser: Any, scheme: str, tmp_path: Path
) -> None:
    config, run = asked(undisturbed)
    beside = start_run(Dataset(str(tmp_path), "verdicts"), config)
    report = run.stage(Stage.CHECKED)
    assert report is not None
    quality = config.quality.model_copy(update={"accept_above": 0.9})
    strict = config.model_copy(
        update={"quality": quality, "gates": GatesConfig(severities={"above_accept_bound": "warn"})}
    )
    [warning] = check_stage(run.dataset, report.shards, Stage.CHECKED, strict, beside)
    write_docs(beside)
    page, asks, complaints = browser.new_page(color_scheme=scheme), [], []
    page.context.set_offline(True)
    page.on("request", lambda request: asks.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    file = tmp_path / run_file("verdicts", beside.number, GATES_PAGE)
    page.goto(file.as_uri())
    assert asks == [file.as_uri()] and complaints == []
    rows = page.locator("tbody tr")
    assert rows.count() == len(recorded(beside))
    [broken] = page.locator("tr.broken").all()
    assert "! warns" in broken.inner_text() and "above_accept_bound" in broken.inner_text()
    assert all(one in broken.inner_text() for one in warning.rsplit(": ", 1)[1].split(", "))
    ink, paper = (
        page.evaluate(f"getComputedStyle(document.querySelector('{where}')).{what}")
        for where, what in (("h1", "color"), ("tr.broken", "backgroundColor"))
    )
    assert contrast(ink, paper) >= 7
    page.close()


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast of two colours as a browser tells them."""
    low, high = sorted(luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def configured(folder: Path, sample: Path, **gates: Any) -> Path:
    return write_config(folder / "config.yaml", config_of(sample, str(folder / "store"), gates=gates))


def newest(folder: Path) -> Run:
    return existing_run(Dataset(str(folder / "store"), "sample"))


def test_a_figure_out_of_bounds_stops_the_build_before_the_export(
    server: PrefectServer, sample: Path, tmp_path: Path
) -> None:
    done = build(configured(tmp_path, sample, health={"mean_score": IMPOSSIBLE}))
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    assert "health.mean_score" in done.stderr
    run = newest(tmp_path)
    assert run.stage(Stage.FINAL) is None
    assert run.dataset.store.exists(run_file("sample", run.number, GATES_PAGE))


def test_a_figure_that_warns_is_said_and_the_build_goes_on(server: PrefectServer, sample: Path, tmp_path: Path) -> None:
    done = build(configured(tmp_path, sample, health={"mean_score": {**IMPOSSIBLE, "severity": "warn"}}))
    assert done.returncode == 0, done.stderr
    run, end = newest(tmp_path), newest(tmp_path).read("end") or {}
    assert any("health.mean_score" in warning for warning in end["warnings"])
    assert {verdict.suite for verdict in recorded(run)} == {*(stage.value for stage in Stage), "run"}
    assert run.dataset.store.exists(run_file("sample", run.number, GATES_PAGE))
    # Of thirty pictures the retrieval check cannot tell, and says so wherever people look.
    assert done.stdout.count("too few to tell") == 1
    assert any("too few to tell" in warning for warning in end["warnings"])
    assert b"**Too few to tell.** " in run.dataset.store.get(f"{end['export']}/README.md")
    [shown] = newest_artifacts(server, "sample-retrieval")
    assert "too few to tell" in shown["data"]


def test_what_moved_since_the_run_before_is_said_and_shown(
    server: PrefectServer, undisturbed: Built, sample: Path, tmp_path: Path
) -> None:
    """Of a copy of the undisturbed build, of which a rule has become stricter."""
    shutil.copytree(undisturbed.config["store"], tmp_path / "store")
    changed = config_of(sample, str(tmp_path / "store"), filter={"min_side": 400})
    done = build(write_config(tmp_path / "config.yaml", changed))
    assert done.returncode == 0, done.stderr
    run = newest(tmp_path)
    moved = "outcome of 01_filtered moved since the run before"
    [warning] = [said for said in (run.read("end") or {})["warnings"] if moved in said]
    assert "kept went from" in warning and done.stdout.count(moved) == 1
    [page], [table], [picture] = (
        newest_artifacts(server, f"sample-{name}") for name in ("health", "distributions", "scores")
    )
    assert page["type"] == "markdown" and "### Since the run before" in page["data"]
    assert "| `outcome of 01_filtered` | `kept` |" in page["data"]
    counted = measure_health(run).distribution("size")
    sides = {row["value"]: row["count"] for row in json.loads(table["data"]) if row["counted"] == "Shorter side"}
    assert table["type"] == "table" and sides == {f"`{name}`": str(n) for name, n in counted.items()}
    shown = b64decode(picture["data"].removeprefix("data:image/png;base64,"))
    assert picture["type"] == "image" and shown == run.dataset.store.get(health_path(run, SCORES_PNG))


def newest_artifacts(server: PrefectServer, key: str) -> list[dict[str, Any]]:
    body = {"artifacts": {"key": {"any_": [key]}}, "limit": 1, "sort": "UPDATED_DESC"}
    found: list[dict[str, Any]] = httpx.post(f"{server.api}/artifacts/filter", json=body).raise_for_status().json()
    return found


def test_a_rule_that_is_not_there_is_refused_before_anything_is_done(
    server: PrefectServer, sample: Path, tmp_path: Path
) -> None:
    done = build(configured(tmp_path, sample, health={"mean_scores": IMPOSSIBLE}))
    assert done.returncode == 2 and "did you mean mean_score" in done.stderr, done.stderr
    assert not (tmp_path / "store" / "sample" / "runs").exists()
