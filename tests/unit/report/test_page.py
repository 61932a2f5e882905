"""The page as a file: whole, escaped, of a bounded size, and the same each time."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.errors import ConfigError
from vlmdata.layout import Stage
from vlmdata.report import make
from vlmdata.report.make import LARGEST, first_within, make_report, write_file
from vlmdata.report.page import _filled, as_script
from vlmdata.runs import existing_run, start_run

HOSTILE = '</script><script>alert(1)</script><!-- "\u2028 {{data}} &amp;'


def data_of(page: bytes) -> dict[str, Any]:
    """What the page's script reads, as a browser would cut it out."""
    [block] = re.findall(rb'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    found: dict[str, Any] = json.loads(block)
    return found


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_text_ends_the_script_that_holds_it(value: Any) -> None:
    written = as_script(value)
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == value


def test_what_stands_in_a_part_is_no_name_of_another() -> None:
    assert _filled("a{{x}}b{{y}}c", {"x": "{{y}}", "y": "}}{{x}}"}) == "a{{y}}b}}{{x}}c"


class Tags(HTMLParser):
    """Every element with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def page(story: Any) -> bytes:
    return make_report(existing_run(story.dataset))


def test_it_names_nothing_to_fetch(page: bytes) -> None:
    tags = Tags()
    tags.feed(page.decode())
    assert [tag for tag, _ in tags.seen if tag in {"link", "iframe", "object", "embed", "base", "form"}] == ["form"]
    links = [value for _, given in tags.seen for name, value in given.items() if name in {"src", "href", "xlink:href"}]
    assert all(link and link.startswith("#") for link in links)
    assert not [name for _, given in tags.seen for name in given if name.startswith("on") or name == "style"]
    policies = [given["content"] or "" for _, given in tags.seen if given.get("http-equiv")]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policies[0]


def test_every_chart_has_a_title_and_a_description(page: bytes) -> None:
    text = page.decode()
    charts = re.findall(r"<svg [^>]*>", text)
    assert len(charts) >= 5
    for chart in charts:
        named = re.search(r'role="img" aria-labelledby="(\S+) (\S+)"', chart)
        assert named
        for id_ in named.groups():
            assert len(re.findall(rf'id="{id_}">[^<]+<', text)) == 1


def test_it_is_made_the_same_again(story: Any, page: bytes) -> None:
    assert make_report(existing_run(story.dataset)) == page


def test_its_samples_have_their_stories_and_pictures(page: bytes) -> None:
    data = data_of(page)
    told = {sample["key"]: sample for sample in data["samples"]}
    assert set(told) == {
        *("good.png", "also.png", "held.png", "wrong.png", "small.png", "broken.png", "twin.png", "silent.png"),
        "gone.png",
    }
    assert data["total"] == len(told)
    assert (told["small.png"]["value"], told["small.png"]["bound"], told["small.png"]["unit"]) == (20, 40, "px")
    shown = {told[key]["id"] for key in told if key not in {"broken.png", "gone.png"}}
    assert set(data["thumbs"]) == shown
    assert all(url.startswith("data:image/webp;base64,") for url in data["thumbs"].values())


def test_what_strangers_wrote_stays_text(tiny: Any, pictures: Any) -> None:
    start = tiny({"<b>.png": pictures.png(1)}, {"<b>.png": [HOSTILE]})
    run = start_run(start.dataset, start.config)
    run.stage_done(start.ingested().report(Stage.RAW))
    page = make_report(run)
    tags = Tags()
    tags.feed(page.decode())
    assert [tag for tag, _ in tags.seen].count("script") == 2 and "b" not in {tag for tag, _ in tags.seen}
    [sample] = data_of(page)["samples"]
    assert (sample["key"], sample["captions"][0]["text"]) == ("<b>.png", HOSTILE)


def test_it_stays_small_whatever_strangers_wrote(tiny: Any, pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small allowance in the place of the large one, which would take a large set to reach."""
    said = {f"{n:02}.png": ["\u2028<&" * 1_000 + str(n), "&" * 1_900] for n in range(40)}
    start = tiny({name: pictures.png(n, 300, 200) for n, name in enumerate(said)}, said)
    run = start_run(start.dataset, start.config)
    built = start.ingested()
    run.stage_done(built.report(Stage.RAW))
    run.stage_done(built.filtered().report(Stage.FILTERED))
    whole = make_report(run)
    bare = len(whole) - sum(map(len, data_of(whole)["thumbs"].values())) - len(as_script(data_of(whole)["samples"]))
    monkeypatch.setattr(make, "_TEXT", 60_000)
    monkeypatch.setattr(make, "LARGEST", bare + 110_000)
    monkeypatch.setattr(make, "_ROOM", 2_000)
    small = make_report(run)
    assert len(small) <= bare + 110_000 < len(whole) < LARGEST
    data = data_of(small)
    assert 0 < len(data["samples"]) < 40 and 0 < len(data["thumbs"]) <= len(data["samples"])
    assert data["total"] == 40
    # Less than three cards of each gallery take.
    monkeypatch.setattr(make, "LARGEST", bare + 9_000)
    least = make_report(run)
    assert len(least) <= bare + 9_000
    assert 0 < len(data_of(least)["samples"]) < 3 and data_of(least)["total"] == 40


TEXTS = st.text(max_size=60) | st.text("<&>\u2028\U0001f600", max_size=60)


@given(st.lists(st.fixed_dictionaries({"id": TEXTS, "text": TEXTS})), st.integers(0, 3_000))
def test_no_more_records_than_there_is_room_for_and_no_fewer(rows: list[dict[str, Any]], room: int) -> None:
    taken = first_within(rows, room)
    assert taken == rows[: len(taken)]
    assert not taken or len(as_script(taken).encode()) <= room
    # The comma that the last one has not is counted, too.
    more = rows[: len(taken) + 1]
    assert more == taken or len(as_script(more).encode()) + 1 > room


def test_long_names_are_cut_wherever_they_stand(tiny: Any, pictures: Any) -> None:
    folders = {f"{first}{'<' * 250}": n for n, first in enumerate("1a")}
    start = tiny({f"{folder}/{n}.png": pictures.png(n) for folder, n in folders.items()})
    run = start_run(start.dataset, start.config)
    run.stage_done(start.ingested().report(Stage.RAW))
    page = make_report(run)
    short = {f"{folder[:199]}…" for folder in folders}
    data = data_of(page)
    assert {value for value, _, _ in data["choices"]["source"]} == short
    assert {sample["came_from"] for sample in data["samples"]} == short, "so that they are found by it"
    assert page.decode().count("&lt;" * 200) == 0


def test_without_the_extra_one_line_says_which(story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(ConfigError, match=r"vl_convert not installed; .*pip install 'vlmdata\[report\]'") as raised:
        make_report(existing_run(story.dataset))
    assert "\n" not in str(raised.value) and raised.value.exit_code == 2


def test_before_anything_was_read_there_is_nothing_to_show(tiny: Any, pictures: Any) -> None:
    start = tiny({"a.png": pictures.png(1)})
    with pytest.raises(ConfigError, match="run 1 has not come through 00_raw"):
        make_report(start_run(start.dataset, start.config))


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Any) -> None:
    write_file(tmp_path / "new" / "page.html", b"one")
    write_file(tmp_path / "new" / "page.html", b"two")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
    assert (tmp_path / "new" / "page.html").read_bytes() == b"two"
    with pytest.raises(ConfigError, match="--out"):
        write_file(tmp_path / "new" / "page.html" / "below.html", b"three")
