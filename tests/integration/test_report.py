"""The report of two nights in a real browser: read, searched, filtered and walked through; nothing leaves it."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.integration.processes import environment, free_port, run, started, vlmdata, wait_until
from tests.integration.reported import ENGLISH, FRENCH, HOSTILE_NAME, two_nights
from tests.servers.faults import fault_server
from tests.unit.conftest import encode, make_tiny, picture, png
from vlmdata.checkpoint import Dataset
from vlmdata.health.buckets import SIDES
from vlmdata.health.measure import measure_health
from vlmdata.health.saved import load, save
from vlmdata.layout import Stage, Step
from vlmdata.report.make import make_report
from vlmdata.report.training import Trained
from vlmdata.runs import existing_run, start_run
from vlmdata.status import status

pytestmark = pytest.mark.integration

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}

HELD_FRENCH = {f"press/fr-{n:02}.png" for n in range(3)}
HELD = {"shop/held-0.png", "shop/held-1.png", *HELD_FRENCH}
FRENCH_ALL = {f"press/fr-{n:02}.png" for n in range(FRENCH)}
PRESS = {*FRENCH_ALL, "press/wrong.png", "press/refused.png", "press/broken.png", "press/told.png"}


@dataclass(frozen=True)
class Reported:
    """The set, and the page of its newest run."""

    dataset: Dataset
    page: Path

    @property
    def address(self) -> str:
        return self.page.as_uri()


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """Both nights, and the page as a person opens it from a folder."""
    folder = tmp_path_factory.mktemp("reported")
    with fault_server() as faults:
        dataset = two_nights(folder, faults)
    page = folder / "page.html"
    page.write_bytes(make_report(existing_run(dataset), trained()))
    return Reported(dataset, page)


def trained() -> Trained:
    """A training of a few epochs; its curves are a picture like any other."""
    rows = [(f"{n}", f"{n * 26}", *["20.6%"] * 2, "58.8% [51.9%, 65.4%]", *["21.1%"] * 2, "57.8%") for n in range(1, 4)]
    return Trained(["starter, trained on tiny, version 2: 20 pairs."], rows, png(77, 1200, 700))


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
    context = browser.new_context(viewport=size or DESK, reduced_motion="reduce", **how)
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
    """Scroll through all of it, two frames a stop, so that every gallery is filled."""
    page.evaluate(
        "async () => { const frame = () => new Promise(requestAnimationFrame);"
        " for (let top = 0; top < document.documentElement.scrollHeight; top += 800)"
        " { scrollTo(0, top); await frame(); await frame(); } scrollTo(0, 0); }"
    )


def settled(page: Page) -> None:
    """Nothing has moved for a fifth of a second."""
    page.evaluate(
        "async () => { let still = 0, was = ''; while (still < 12) { await new Promise(requestAnimationFrame);"
        " const now = `${scrollY} ${document.documentElement.scrollHeight}`;"
        " still = now === was ? still + 1 : 0; was = now; } }"
    )


def expect_found(page: Page, names: Collection[str]) -> None:
    """These samples and no others are found, soon."""
    deadline, wanted, found = time.monotonic() + 15, sorted(names), list[str]()
    while time.monotonic() < deadline:
        visible = page.locator("#results").is_visible()
        found = sorted(page.locator("#results-grid .key").all_inner_texts())
        if visible and found == wanted:
            break
        page.wait_for_timeout(20)
    assert found == wanted
    counted = "1 sample" if len(wanted) == 1 else f"{len(wanted)} samples"
    expect(page.locator("#results-title")).to_have_text(counted)


def choose(page: Page, **filters: str) -> None:
    """Ask for these alone."""
    if page.locator("#clear").is_visible():
        page.locator("#clear").click()
    for name, value in filters.items():
        chosen = page.locator(f"#filters [name={name}]")
        if name in ("q", "min", "max"):
            chosen.fill(value)
        else:
            chosen.select_option(value)


def violations(page: Page, **options: Any) -> list[tuple[str, str]]:
    """Rule and first element of whatever axe objects to."""
    found = Axe().run(page, options={"resultTypes": ["violations"], **options}).response["violations"]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found]


def gallery(page: Page, section: str, title: str) -> Locator:
    return page.locator(f"section#{section} .gallery").filter(has=page.get_by_role("heading", name=title, exact=True))


def rows(page: Page, section: str, title: str) -> list[list[str]]:
    """The table of a figure, open or not."""
    figure = page.locator(f"section#{section} figure").filter(has=page.locator(f"figcaption:text-is('{title}')"))
    return [line.locator("td").all_text_contents() for line in figure.locator("tbody tr").all()]


def test_it_opens_from_disk_and_tells_of_the_whole_run(reported: Reported, chromium: Browser) -> None:
    assert reported.page.stat().st_size < 15_000_000
    with opened(chromium, reported.address) as watched:
        page = watched.page
        walked(page)
        assert watched.requests == [reported.address]
        assert page.locator("main h2:visible").all_inner_texts() == [
            *("Funnel", "Health of what was kept", "Rejected, rule by rule", "Near-duplicates"),
            *("Held, between the bounds", "Failed", "Worst and best pairs", "Captions that did not go on"),
            *("How well captions match, by language", "Drift", "What a model learned from it", "Kept"),
        ]
        broken = "[...document.images].filter(one => one.complete && !one.naturalWidth).length"
        assert page.evaluate("document.images.length") > 20 and page.evaluate(broken) == 0
        assert page.evaluate("[...document.images].every(one => one.alt)")

        rejected = {"Too small": "20 px, bound 40", "Caption does not match": "score 0.100, bound 0.200"}
        for title, measured in rejected.items():
            expect(gallery(page, "rejected", title).locator(".measure:visible")).to_have_text([measured])
        went = page.locator("#duplicates .card").filter(has_text="shop/again.png")
        expect(went.locator(".fate:visible")).to_have_text("went: the same hash")

        refused = gallery(page, "captions", "Captioner refused")
        expect(refused.locator(".key")).to_have_text(["press/refused.png"])
        expect(refused.locator(".card")).to_contain_text("I cannot describe this.")
        failed = gallery(page, "captions", "Captioner failed for good")
        expect(failed.locator(".key")).to_have_text(["press/broken.png"])
        expect(failed.locator(".card")).to_contain_text("injected 422")
        failed.locator(".card").click()
        story = page.locator("#story")
        expect(story).to_contain_text("What the captioner answered")
        expect(story).to_contain_text("permanent · HTTP 422 · 1 requests · injected 422")
        page.keyboard.press("Escape")

        moved = {row[0]: row[1:] for row in rows(page, "drift", "What moved")}
        drift = page.locator("#drift")
        expect(drift).to_contain_text("8 samples added, 0 removed, 0 changed in this version.")
        expect(drift).to_contain_text("Beside version 1 (run 1).")
        assert moved["language"] == ["fr", "0.0%", "29.2%", "0.717", "over the bound"]
        assert moved["images"] == ["–", "15", "23", "–", ""]
        assert moved["size"][1:3] == ["100.0%", "100.0%"] and moved["size"][-1] == ""
        expect(drift.locator("svg").first).to_be_visible()

        scores = rows(page, "alignment", "Scores by language")
        assert {(row[0], row[1]) for row in scores} == {("en", "given"), ("fr", "given")}
        assert [row for row in scores if row[0] == "fr"] == [
            *(["fr", "given", "0.24", "0.26", "3"], ["fr", "given", "0.28", "0.30", "2"]),
            ["fr", "given", "0.30", "0.32", "5"],
        ]
        pairs = {row[0]: row for row in rows(page, "alignment", "Each pair of languages")}
        assert pairs["fr"][3:] == ["10", "0.286", "–", "7", "3", "0"]
        assert pairs["en"][3:] == ["20", "0.360", "–", "17", "2", "1"]


SIZES = ((64, 48), (240, 300), (400, 260), (256, 256), (256, 300), (600, 520))


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """One night of pictures of many sizes; of each fate there is one, and each ends at a stage of its own."""
    folder = tmp_path_factory.mktemp("sized")
    files = {f"{n}.png": png(n, *size) for n, size in enumerate(SIZES)}
    files |= {"small.png": png(20, 20, 20), "held.png": png(21), "failed.png": png(22), "silent.png": png(23)}
    start = make_tiny(folder, files, {name: [name] for name in files if name != "silent.png"})
    done, started_run = start.ingested(), start_run(start.dataset, start.config)
    started_run.stage_done(done.report(Stage.RAW))
    done = done.filtered()
    started_run.stage_done(done.report(Stage.FILTERED))
    done = done.captioned()
    started_run.stage_done(done.report(Stage.CAPTIONED))
    done = done.judged({"held.png": 0.25, "failed.png": float("nan")})
    started_run.stage_done(done.report(Stage.CHECKED))
    started_run.stage_done(done.exported().report(Stage.FINAL))
    save(started_run, measure_health(started_run))
    (folder / "page.html").write_bytes(make_report(started_run))
    return Reported(start.dataset, folder / "page.html")


@pytest.fixture(params=["reported", "sized"])
def either(request: pytest.FixtureRequest) -> Reported:
    """The page of two nights, and that of many sizes."""
    found: Reported = request.getfixturevalue(request.param)
    return found


def test_its_funnel_is_what_the_status_says(either: Reported, chromium: Browser) -> None:
    asked = vlmdata("status", "--store", either.dataset.store_url, "--dataset", "tiny", "--json")
    told = json.loads(run(asked, environment()).stdout)
    counts = fates(told)
    assert len(counts) == 5 and all(numbers[0] == sum(numbers[1:]) > 0 for numbers in counts.values())
    with opened(chromium, either.address) as watched:
        page = watched.page
        assert {stage: [int(one) for one in row[:5]] for stage, *row in rows(page, "overview", "The funnel")} == counts
        shares = {stage: row[5:] for stage, *row in rows(page, "overview", "The funnel")}
        assert shares == {
            stage: [f"{row['rejection_rate']:.1%}", f"{row['mean_score']:.3f}"] for stage, row in told["stages"].items()
        }
        why = {(stage, what, code): int(n) for stage, what, code, n in rows(page, "overview", "Why not kept")}
        assert why == {
            (stage, what, code): n
            for stage, row in told["stages"].items()
            for what, reasons in (("samples", row["reasons"]), ("captions", row["captions"]["reasons"]))
            for code, n in reasons.items()
        }
        said = page.locator("#overview svg desc").first.text_content() or ""
        for stage, (came, kept, *_) in counts.items():
            assert f"{stage}: {kept} of {came} kept" in said
        assert page.locator("#overview dd:visible").all_inner_texts()[:2] == [
            str(counts["00_raw"][0]),
            str(counts["04_final"][1]),
        ]


FATES = ("in", "kept", "rejected", "held", "failed")


def fates(told: dict[str, Any]) -> dict[str, list[int]]:
    """By stage, what came in and what became of it."""
    return {stage: [row[name] for name in FATES] for stage, row in told["stages"].items()}


def test_of_each_fate_and_of_several_sizes_there_are_some(sized: Reported) -> None:
    """Or the pages would be equal to the run in zeros."""
    assert fates(status(sized.dataset)) == {
        "00_raw": [10, 10, 0, 0, 0],
        "01_filtered": [10, 9, 1, 0, 0],
        "02_captioned": [9, 8, 1, 0, 0],
        "03_quality_checked": [8, 6, 0, 1, 1],
        "04_final": [6, 6, 0, 0, 0],
    }
    assert sizes_counted_by_hand(sized.dataset) == {"<224": 1, "224-255": 1, "256-383": 3, "512-767": 1}


DISTRIBUTIONS = {
    "Shorter side": "size",
    "Aspect ratio": "aspect_ratio",
    "Length of captions": "words",
    "Languages": "language",
    "Sources": "source",
    "Licences": "license",
    "Who wrote the captions": "origin",
}
"""What the health section shows, by the titles of its figures."""


def test_its_health_is_that_of_the_run(either: Reported, chromium: Browser) -> None:
    health = load(existing_run(either.dataset))
    assert health is not None
    with opened(chromium, either.address) as watched:
        page = watched.page
        assert page.locator("section#health figcaption").all_text_contents() == list(DISTRIBUTIONS)
        for title, what in DISTRIBUTIONS.items():
            counted = {("not stated" if value is None else value): n for value, n in health.distribution(what).items()}
            assert {value: int(n) for value, n in rows(page, "health", title)} == counted, title
            assert sum(counted.values()) == health.figures["captions" if what in OF_CAPTIONS else "images"]
        sides = {value: int(n) for value, n in rows(page, "health", "Shorter side")}
        by_hand = sizes_counted_by_hand(either.dataset)
        assert {value: n for value, n in sides.items() if n} == by_hand


OF_CAPTIONS = {"words", "language", "origin"}


def sizes_counted_by_hand(dataset: Dataset) -> dict[str, int]:
    """Pictures that 03 kept, by the bucket of their shorter side."""
    report = existing_run(dataset).stage(Stage.CHECKED)
    assert report is not None
    counted: dict[str, int] = {}
    for shard in report.shards:
        for row in dataset.read(shard, Step.CHECKED, "samples", ["width", "height"]).to_pylist():
            label = SIDES.labels[sum(min(row.values()) >= border for border in SIDES.borders)]
            counted[label] = counted.get(label, 0) + 1
    return counted


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_a_cluster_shows_in_words_which_picture_stayed(
    reported: Reported, chromium: Browser, size: dict[str, int]
) -> None:
    with opened(chromium, reported.address, size) as watched:
        walked(watched.page)
        [cluster] = watched.page.locator("#duplicates .gallery").all()
        keeper, went = cluster.locator(".card").all()
        expect(keeper.locator(".key")).to_have_text("shop/en-00.png")
        expect(keeper.locator(".fate")).to_have_text("stayed")
        expect(keeper.locator(".fate")).to_be_visible()
        place = keeper.locator(".fate").bounding_box()
        assert place and place["width"] > 20 and place["height"] > 8, "and not for a screen reader alone"
        expect(went.locator(".key")).to_have_text("shop/again.png")
        assert "stayed" not in went.inner_text()


def test_a_near_duplicate_says_how_many_bits_away_it_is(chromium: Browser, tmp_path: Path) -> None:
    raw = make_tiny(tmp_path, {"stays.png": png(0), "goes.png": encode(picture(0, 48, 40))}, {}).ingested()
    filtered, run = raw.filtered(), start_run(raw.dataset, raw.config)
    run.stage_done(raw.report(Stage.RAW))
    run.stage_done(filtered.report(Stage.FILTERED))
    [bits] = [int(row["value"]) for row in filtered.rows(Step.FILTERED, "rejects")]
    assert bits > 1
    (tmp_path / "page.html").write_bytes(make_report(run))
    with opened(chromium, (tmp_path / "page.html").as_uri()) as watched:
        walked(watched.page)
        went = watched.page.locator("#duplicates .card").filter(has_text="goes.png")
        expect(went.locator(".fate:visible")).to_have_text(f"went: {bits} bits away")
        expect(went.locator(".measure:visible")).to_have_text(f"{bits} bits, bound 8")


def test_nothing_outside_could_be_asked_if_it_wanted_to(reported: Reported, chromium: Browser) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(reported.address)
    tried = page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.message)")
    assert tried == "Failed to fetch"
    refused = page.evaluate(
        "new Promise(done => { document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));"
        " const one = new Image(); one.src = 'http://127.0.0.1:9/x.png'; })"
    )
    assert refused == "img-src"
    context.close()


def test_filters_and_search_find_just_what_is_asked_for(reported: Reported, chromium: Browser) -> None:
    with opened(chromium, reported.address) as watched:
        page = watched.page
        choose(page, reason="too_small")
        expect_found(page, {"shop/tiny.png"})
        assert "reason=too_small" in page.url
        expect(page.locator("#report")).to_be_hidden()
        page.reload()
        expect_found(page, {"shop/tiny.png"})
        page.locator("#clear").click()
        expect(page.locator("#report")).to_be_visible()
        assert "reason" not in page.url

        choose(page, stage="01_filtered")
        expect_found(page, {f"shop/{name}.png" for name in ("again", "cut", "empty", "tiny")})
        choose(page, stage="01_filtered", outcome="held")
        expect_found(page, ())
        choose(page, outcome="held")
        expect_found(page, HELD)
        choose(page, outcome="held", language="fr")
        expect_found(page, HELD_FRENCH)
        choose(page, language="fr")
        expect_found(page, FRENCH_ALL)
        choose(page, source="press")
        expect_found(page, PRESS)
        choose(page, source=".")
        expect_found(page, {HOSTILE_NAME})
        choose(page, reason="caption_refused")
        expect_found(page, {"press/refused.png"})
        choose(page, max="0.245")
        expect_found(page, {"shop/held-0.png", "press/wrong.png"})
        choose(page, min="0.2", max="0.245")
        expect_found(page, {"shop/held-0.png"})
        choose(page, min="0.42", source="shop")
        expect_found(page, {"shop/en-00.png", "shop/en-12.png", "shop/en-13.png"})

        choose(page, q="BUS RED 13")
        expect_found(page, {"shop/en-13.png"})
        choose(page, q="rouge bus")
        expect_found(page, FRENCH_ALL)
        choose(page, q="bus press fr-04 numéro")
        expect_found(page, {"press/fr-04.png"})
        id_ = page.locator("#results-grid .card").get_attribute("data-id") or ""
        choose(page, q=id_[:12])
        expect_found(page, {"press/fr-04.png"})
        choose(page, q="bus nowhere")
        expect_found(page, ())


def test_what_strangers_wrote_is_shown_as_text_and_a_click_tells_a_story(reported: Reported, chromium: Browser) -> None:
    with opened(chromium, f"{reported.address}#q=onerror") as watched:
        page, story = watched.page, watched.page.locator("#story")
        expect_found(page, {HOSTILE_NAME})
        text = page.locator("#results-grid .text").inner_text()
        assert "</script><script>window.hacked=1</script>" in text and "{{data}}" in text
        page.locator("#results-grid .card").click()
        expect(story.locator("h2")).to_have_text(HOSTILE_NAME)
        assert page.locator("#story script, #story b:text('bold'), #story img[src=x]").count() == 0
        page.keyboard.press("Escape")

        choose(page, reason="near_duplicate")
        expect_found(page, {"shop/again.png"})
        page.locator("#results-grid .card").click()
        expect(story).to_be_visible()
        told = story.inner_text()
        assert "01_filtered: rejected" in told and "near_duplicate" in told and "02_captioned: not reached" in told
        assert re.search(r"vlmdata explain [0-9a-f]{32} --store", told)
        story.locator(".others button").click()
        expect(story).to_contain_text("Went for it")
        expect(story.locator("h2")).to_have_text("shop/en-00.png")


def test_it_is_walked_by_keyboard_alone_and_by_its_links(reported: Reported, chromium: Browser) -> None:
    with opened(chromium, reported.address) as watched:
        page = watched.page
        for name in ("Kept", "Held", "Languages"):
            page.locator(f"nav a:text-is('{name}')").click()
            settled(page)
            expect(page.locator(f"section[data-name={name}] h2")).to_be_in_viewport()
            page.evaluate("window.scrollTo(0, 0)")
        page.goto("about:blank")
        page.goto(reported.address)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("/")
        page.keyboard.type("red bus")
        expect_found(page, {f"shop/en-{n:02}.png" for n in range(ENGLISH)})
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
        # Where it was opened, or gone on to.
        expect(page.locator(f"#results-grid [data-id='{ids[1]}']")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator("#report")).to_be_visible()


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_axe_finds_nothing(reported: Reported, chromium: Browser, size: dict[str, int]) -> None:
    with opened(chromium, reported.address, size, color_scheme="light") as watched:
        page = watched.page
        walked(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        no_objection_in_either_scheme(page)
        page.locator("details").first.evaluate("one => one.open = true")
        page.locator("#q").fill("png")
        expect(page.locator("#results-title")).to_have_text("35 samples")
        if size is PHONE:
            page.locator("#more-filters").click()
        no_objection_in_either_scheme(page)
        page.locator("#results-grid .card").first.click()
        expect(page.locator("#story")).to_be_visible()
        no_objection_in_either_scheme(page)


def no_objection_in_either_scheme(page: Page) -> None:
    """Dark and light differ in their colours alone."""
    page.emulate_media(color_scheme="dark")
    assert violations(page, runOnly=["color-contrast"]) == []
    page.emulate_media(color_scheme="light")
    assert violations(page) == []


@pytest.fixture(scope="module")
def served(reported: Reported) -> Iterator[str]:
    """The address of `vlmdata report --serve`, once it answers."""
    port, store = free_port(), reported.dataset.store_url
    command = vlmdata("report", "--store", store, "--dataset", "tiny", "--serve", "--port", str(port))
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
        settled(page)
        before = sum("/thumb/" in url for url in watched.requests)
        walked(page)
        page.wait_for_load_state("networkidle")
        seen = sum("/thumb/" in url for url in watched.requests)
        assert before < seen
        assert {url.split("/")[2] for url in watched.requests if url.startswith("http")} == {served.split("/")[2]}
        choose(page, q="13 bus red")
        expect_found(page, {"shop/en-13.png"})
        choose(page, q="onerror")
        expect_found(page, {HOSTILE_NAME})
        choose(page, outcome="held", language="fr")
        expect_found(page, HELD_FRENCH)
        choose(page, source="press")
        expect_found(page, PRESS)
        choose(page, reason="near_duplicate")
        expect_found(page, {"shop/again.png"})
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
