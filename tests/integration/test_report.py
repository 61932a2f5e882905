"""The report of a real build in a real browser: found, read, searched and walked through, and nothing leaves it."""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import environment, free_port, run, started, vlmdata, wait_until
from tests.integration.sample import build_here, config_of

pytestmark = pytest.mark.integration

HOSTILE_NAME = "<img src=x onerror=hacked=1>.png"
HOSTILE_CAPTION = "</script><script>window.hacked=1</script> & <b>bold</b> \u2028 {{data}}"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


@dataclass(frozen=True)
class Reported:
    """A build, and the page of it that `vlmdata report` wrote."""

    store: str
    told: dict[str, Any]
    page: Path
    hostile: str


@pytest.fixture(scope="module")
def reported(server: PrefectServer, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """The sample with a name and a caption that mean harm; half of the captions are held."""
    folder = tmp_path_factory.mktemp("reported")
    hostile = folder / "sample"
    shutil.copytree(sample, hostile)
    lines = (hostile / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    shutil.move(hostile / "pictures" / rows[0]["file"], hostile / "pictures" / HOSTILE_NAME)
    rows[0] = {"file": HOSTILE_NAME, "captions": [{"text": HOSTILE_CAPTION, "lang": "en"}]}
    (hostile / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    bounds = {"model": "starter", "pretrained": None, "accept_above": 0.15, "reject_below": -1.0}
    quality = {**bounds, "retrieval": {"max_miss_rate": 1.0}}
    store = str(folder / "store")
    told = build_here(config_of(hostile, store, report=True, quality=quality), server.api)
    page = folder / "page.html"
    done = run(vlmdata("report", "--store", store, "--dataset", "sample", "--out", str(page)), environment())
    assert done.returncode == 0, done.stderr
    return Reported(store, told, page, HOSTILE_NAME)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser
        browser.close()


@dataclass
class Watched:
    """An open page, what it complained of, and what it asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened(browser: Browser, address: str, size: Any = None, **how: Any) -> Iterator[Watched]:
    """The page in a window of its own; whatever was done, it complained of nothing."""
    context = browser.new_context(viewport=size or DESK, **how)
    watched = Watched(context.new_page())
    watched.page.on("console", lambda said: watched.complaints.append(f"{said.type}: {said.text}"))
    watched.page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    watched.page.on("request", lambda asked: watched.requests.append(asked.url))
    watched.page.goto(address)
    yield watched
    assert watched.complaints == []
    assert watched.page.evaluate("window.hacked") is None
    context.close()


def walked(page: Page) -> None:
    """Scroll through all of it, so that every gallery is filled."""
    height = page.evaluate("document.documentElement.scrollHeight")
    for top in range(0, height + 2_000, 600):
        page.evaluate(f"window.scrollTo(0, {top})")
        page.wait_for_timeout(30)
    page.evaluate("window.scrollTo(0, 0)")


def results(page: Page) -> list[str]:
    """Names of the samples that were found."""
    expect(page.locator("#results")).to_be_visible()
    page.wait_for_timeout(200)
    return page.locator("#results-grid .key").all_inner_texts()


def test_the_run_leaves_its_report_and_prefect_links_it(reported: Reported, server: PrefectServer) -> None:
    page = Path(reported.told["report"])
    assert page.name == "report.html" and page.parent.name == "000001"
    assert page.read_bytes() == reported.page.read_bytes(), "made again, it is the same"
    asked = urllib.request.Request(
        f"{server.api}/artifacts/filter",
        data=json.dumps({"artifacts": {"key": {"any_": ["sample-report"]}}}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(asked) as answer:
        [artifact] = json.loads(answer.read())
    assert artifact["type"] == "markdown" and page.as_uri() in artifact["data"]


def test_it_opens_from_disk_and_asks_for_nothing(reported: Reported, chromium: Browser) -> None:
    assert reported.page.stat().st_size < 15_000_000
    with opened(chromium, reported.page.as_uri()) as watched:
        walked(watched.page)
        assert watched.requests == [reported.page.as_uri()]
        shown = watched.page.locator("main h2:visible").all_inner_texts()
        assert {"Funnel", "Health of what was kept", "Rejected, rule by rule", "Near-duplicates"} <= set(shown)
        assert {"Held, between the bounds", "Worst and best pairs", "Drift", "Kept"} <= set(shown)
        broken = "[...document.images].filter(one => one.complete && !one.naturalWidth).length"
        assert watched.page.evaluate("document.images.length") > 20 and watched.page.evaluate(broken) == 0
        assert watched.page.evaluate("[...document.images].every(one => one.alt)")


def test_nothing_outside_could_be_asked_if_it_wanted_to(reported: Reported, chromium: Browser) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(reported.page.as_uri())
    tried = page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.message)")
    assert tried == "Failed to fetch"
    refused = page.evaluate(
        "new Promise(done => { document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));"
        " const one = new Image(); one.src = 'http://127.0.0.1:9/x.png'; })"
    )
    assert refused == "img-src"
    context.close()


def test_what_strangers_wrote_is_shown_as_text(reported: Reported, chromium: Browser) -> None:
    with opened(chromium, reported.page.as_uri()) as watched:
        page = watched.page
        page.locator("#q").fill("onerror")
        assert results(page) == [HOSTILE_NAME]
        text = page.locator("#results-grid .text").inner_text()
        assert "</script><script>window.hacked=1</script>" in text and "{{data}}" in text
        page.locator("#results-grid .card").click()
        assert page.locator("#story h2").inner_text() == HOSTILE_NAME
        assert page.locator("#story script, #story b:text('bold'), #story img[src=x]").count() == 0


def test_filters_work_and_stay_in_the_address(reported: Reported, chromium: Browser) -> None:
    with opened(chromium, reported.page.as_uri()) as watched:
        page = watched.page
        page.locator("select[name=reason]").select_option("too_small")
        assert results(page) == ["tiny.png"]
        assert "reason=too_small" in page.url
        expect(page.locator("#report")).to_be_hidden()
        page.reload()
        assert results(page) == ["tiny.png"]
        page.locator("#clear").click()
        expect(page.locator("#report")).to_be_visible()
        assert "reason" not in page.url

        page.locator("select[name=stage]").select_option("01_filtered")
        assert sorted(results(page)) == ["again.png", "cut.jpg", "empty.png", "tiny.png"]
        page.locator("select[name=outcome]").select_option("held")
        assert results(page) == []
        page.locator("select[name=stage]").select_option("")
        held = results(page)
        assert len(held) == reported.told["stages"]["03_quality_checked"]["held"] > 0
        page.locator("select[name=language]").select_option("de")
        assert 0 < len(results(page)) <= len(held)
        page.locator("#clear").click()

        page.locator("input[name=min]").fill("0.15")
        high = results(page)
        page.locator("input[name=max]").fill("0.3")
        between = results(page)
        assert 0 < len(between) < len(high)
        page.locator("#clear").click()
        source = page.locator("select[name=source] option").nth(1).get_attribute("value")
        page.locator("select[name=source]").select_option(source)
        assert results(page)


def test_it_is_searched_by_id_and_by_words_of_captions(reported: Reported, chromium: Browser) -> None:
    with opened(chromium, reported.page.as_uri()) as watched:
        page = watched.page
        page.locator("#q").fill("THE PICTURE TINY")
        assert results(page) == ["tiny.png"]
        id_ = page.locator("#results-grid .card").get_attribute("data-id") or ""
        page.locator("#q").fill(id_[:12])
        assert results(page) == ["tiny.png"]
        page.locator("#q").fill("no such words anywhere")
        assert results(page) == [] and page.locator("#results-title").inner_text() == "0 samples"


def test_a_click_tells_a_sample_s_story(reported: Reported, chromium: Browser) -> None:
    with opened(chromium, f"{reported.page.as_uri()}#reason=near_duplicate") as watched:
        page = watched.page
        page.locator("#results-grid .card").click()
        story = page.locator("#story")
        expect(story).to_be_visible()
        text = story.inner_text()
        assert "01_filtered: rejected" in text and "near_duplicate" in text and "02_captioned: not reached" in text
        assert re.search(r"vlmdata explain [0-9a-f]{32} --store", text)
        story.locator(".others button").click()
        assert "Went for it" in story.inner_text() and "again.png" not in story.locator("h2").inner_text()


def test_a_section_s_link_leads_to_it(reported: Reported, chromium: Browser) -> None:
    with opened(chromium, reported.page.as_uri(), reduced_motion="reduce") as watched:
        page = watched.page
        for name in ("Kept", "Held", "Languages"):
            page.locator(f"nav a:text-is('{name}')").click()
            page.wait_for_timeout(800)
            heading = page.locator(f"section[data-name={name}] h2")
            expect(heading).to_be_in_viewport()
            page.evaluate("window.scrollTo(0, 0)")


def test_it_is_walked_by_keyboard_alone(reported: Reported, chromium: Browser) -> None:
    with opened(chromium, reported.page.as_uri()) as watched:
        page = watched.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("/")
        page.keyboard.type("png")
        assert len(results(page)) >= 8
        focused = "document.activeElement.dataset.id"
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate(focused):
                break
        ids = [card.get_attribute("data-id") for card in page.locator("#results-grid .card").all()]
        assert page.evaluate(focused) == ids[0]
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert page.evaluate(focused) == ids[2]
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowDown")
        assert ids.index(page.evaluate(focused)) > 4
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        expect(page.locator("#story")).to_be_visible()
        names = [page.locator("#story h2").inner_text()]
        page.keyboard.press("ArrowRight")
        names.append(page.locator("#story h2").inner_text())
        assert names == page.locator("#results-grid .key").all_inner_texts()[:2]
        page.keyboard.press("Escape")
        expect(page.locator("#story")).to_be_hidden()
        assert page.evaluate(focused) == ids[1], "where it was opened, or gone on to"
        page.keyboard.press("Escape")
        expect(page.locator("#report")).to_be_visible()


@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", DESK), ("light", PHONE), ("dark", PHONE)])
def test_axe_finds_nothing(reported: Reported, chromium: Browser, scheme: str, size: dict[str, int]) -> None:
    with opened(chromium, reported.page.as_uri(), size, color_scheme=scheme, reduced_motion="reduce") as watched:
        page = watched.page
        walked(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert violations(page) == []
        page.locator("details").first.evaluate("one => one.open = true")
        page.locator("#q").fill("png")
        results(page)
        if size is PHONE:
            page.locator("#more-filters").click()
        assert violations(page) == []
        page.locator("#results-grid .card").first.click()
        expect(page.locator("#story")).to_be_visible()
        assert violations(page) == []


def violations(page: Page) -> list[tuple[str, str]]:
    """Rule and first element of whatever axe objects to."""
    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found]


@pytest.fixture(scope="module")
def served(reported: Reported) -> Iterator[str]:
    """The address of `vlmdata report --serve`, once it answers."""
    port = free_port()
    command = vlmdata("report", "--store", reported.store, "--dataset", "sample", "--serve", "--port", str(port))
    with started(command, environment()):
        wait_until(lambda: listens(port), "the report is served")
        yield f"http://127.0.0.1:{port}"


def listens(port: int) -> bool:
    """Whether a whole page comes."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            return bool(answer.read())
    except OSError:
        return False


def test_served_it_searches_all_samples_and_loads_pictures_as_they_are_seen(served: str, chromium: Browser) -> None:
    with opened(chromium, served) as watched:
        page = watched.page
        page.wait_for_timeout(300)
        before = sum("/thumb/" in url for url in watched.requests)
        walked(page)
        page.wait_for_timeout(500)
        seen = sum("/thumb/" in url for url in watched.requests)
        assert before < seen
        assert {url.split("/")[2] for url in watched.requests if url.startswith("http")} == {served.split("/")[2]}
        page.locator("#q").fill("onerror")
        assert results(page) == [HOSTILE_NAME]
        page.locator("#q").fill("")
        page.locator("select[name=reason]").select_option("near_duplicate")
        assert results(page) == ["again.png"]
        page.locator("#results-grid .card").click()
        page.locator("#story .others button").click()
        expect(page.locator("#story")).to_contain_text("Went for it")
        assert violations(page) == []


def test_served_it_answers_its_own_names_and_ids_alone(served: str) -> None:
    def status(path: str, **headers: str) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{served}{path}", headers=headers)) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert status("/") == 200
    assert status("/", Host="attacker.example") == 400
    assert status("/thumb/..%2f..%2fetc%2fpasswd") == 404
    assert status("/thumb/0123456789abcdef") == 404
    assert status("/api/sample/%27%20OR%20true") == 404
    assert status("/api/samples?q=%27%29%3B%20DROP%20TABLE%20samples%3B--&min=nan&after=%27") == 200
    assert status("/api/samples?after=zzz&min=1e999") == 200
    assert status("/api/samples?reason=too_small") == 200


def test_mistakes_are_one_line(reported: Reported, tmp_path: Path) -> None:
    nothing = run(vlmdata("report", "--store", str(tmp_path), "--dataset", "sample"), environment())
    assert nothing.returncode == 2 and len(nothing.stderr.strip().splitlines()) == 1
    words = ("report", "--store", reported.store, "--dataset", "sample", "--out", str(reported.page / "below.html"))
    unwritten = run(vlmdata(*words), environment())
    assert unwritten.returncode == 2 and unwritten.stderr.count("\n") == 1 and "--out" in unwritten.stderr
