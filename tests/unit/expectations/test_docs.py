"""The page of a run's verdicts: whole, escaped, and in need of nothing else."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from expectations.docs import docs_page, write_docs
from expectations.gate import check_stage
from expectations.verdict import Verdict, recorded
from vlmdata.layout import GATES_PAGE, Stage, run_file
from vlmdata.runs import existing_run, start_run

ASKS = {"src", "href", "action", "data", "srcset", "poster"}
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"])) | st.just("<script>alert('1')</script>")


class Page(HTMLParser):
    """Tags, addresses that a browser would follow, and text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str | None] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ASKS]

    def handle_data(self, data: str) -> None:
        self.text += data


def verdict(**changed: Any) -> Verdict:
    plain = {"suite": "00_raw", "rule": "r", "severity": "stop", "held": True, "expectation": "e()", "asked": "a"}
    return Verdict(**{**plain, "seen": "s", "ids": (), **changed})


@given(WORDS, WORDS, WORDS, st.booleans(), st.sampled_from(["stop", "warn"]))
def test_words_stay_words(asked: str, seen: str, name: str, held: bool, severity: str) -> None:
    one = verdict(asked=asked, seen=seen, ids=(name,), held=held, severity=severity)
    page, plain = Page(docs_page("x", 1, [one])), Page(docs_page("x", 1, [verdict(ids=("i",), held=held)]))
    assert page.tags == plain.tags and "script" not in page.tags
    for word in (asked, seen, name):
        assert word in page.text
    assert page.addresses == [*(() if held else ["#00_raw"]), "00_raw.json"]


def test_a_run_has_one_page_with_every_rule_and_it_lies_beside_the_results(tiny: Any, story: Any) -> None:
    run = start_run(tiny({}, {}).dataset, story.config)
    assert write_docs(run) is None
    for stage in Stage:
        report = existing_run(story.dataset).stage(stage)
        check_stage(story.dataset, report.shards, stage, story.config, run)
    place = write_docs(run)
    assert place is not None and place.endswith(f"runs/{run.number:06d}/gates/index.html")
    store, name = run.dataset.store, run.dataset.name
    data = store.get(run_file(name, run.number, GATES_PAGE))
    page = Page(data)
    every = recorded(run)
    assert page.tags.count("tr") == len(every) + len(Stage)
    for one in every:
        assert one.rule in page.text and one.asked in page.text and one.expectation in page.text
    assert page.addresses == [f"{stage.value}.json" for stage in Stage]
    assert all(store.exists(run_file(name, run.number, f"gates/{file}")) for file in page.addresses)
    assert b"http" not in data.replace(b"http-equiv", b"")


def test_what_broke_is_told_in_words_as_well_as_in_colour() -> None:
    page = Page(docs_page("x", 1, [verdict(), verdict(held=False), verdict(held=False, severity="warn")]))
    for word in ("✓ held", "✕ stops", "! warns", "Of 3 rules: ", "1 held", "1 warns", "1 stops"):
        assert word in page.text
