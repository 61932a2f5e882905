"""Charts: SVG that is whole, says what it shows, follows the page's colours, and holds names as text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from vlmdata.health import plots
from vlmdata.health.drift import Moved
from vlmdata.health.health import DISTRIBUTIONS, JUDGED, LENGTHS, SCORES, STAGES, Health
from vlmdata.layout import Stage

HOSTILE = "<script>alert('x')</script>\u202e&"
STAGE = {"kept": 8, "held": 1, "rejected": 2, "failed": 0, "in": 11}
TOLD = {"stages": {stage.value: STAGE for stage in Stage}}


def health(**counts: dict[str | None, int]) -> Health:
    rows = [{"what": what, "value": name, "count": n} for what, named in counts.items() for name, n in named.items()]
    scores = [{"model": "m", "language": HOSTILE, "low": 0.2, "high": 0.22, "count": 3}] if counts else []
    return Health(
        dataset="set",
        run=1,
        stage=Stage.CHECKED.value,
        figures={},
        distributions=pa.Table.from_pylist(rows, schema=DISTRIBUTIONS),
        lengths=LENGTHS.empty_table(),
        scores=pa.Table.from_pylist(scores, schema=SCORES),
        judged=JUDGED.empty_table(),
        stages=STAGES.empty_table(),
    )


WHOLE = health(
    size={"<224": 0, "224-255": 3, ">=1024": 1},
    aspect_ratio={"square <5:4": 3, "wide >=3:1": 1},
    words={"2-3": 4, "1": 2, ">=1024": 1, "16-31": 5},
    language={"en": 5, HOSTILE: 2, None: 1},
    source={f"host-{n}.example": 20 - n for n in range(20)},
)
CHARTS: dict[str, Callable[[], str]] = {
    "funnel": lambda: plots.funnel(TOLD),
    "sizes": lambda: plots.sizes(WHOLE),
    "aspect_ratios": lambda: plots.aspect_ratios(WHOLE),
    "caption_lengths": lambda: plots.caption_lengths(WHOLE),
    "languages": lambda: plots.languages(WHOLE),
    "sources": lambda: plots.sources(WHOLE),
    "scores": lambda: plots.scores(WHOLE),
    "drifts": lambda: plots.drifts([Moved("size", 0.1, 0.2, 0.3, True, HOSTILE), Moved("images", 1, 2, None, False)]),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_whole_described_and_made_the_same_again(name: str) -> None:
    svg = CHARTS[name]()
    root = ElementTree.fromstring(svg)
    title, text = root[0], root[1]
    assert root.get("role") == "img" and root.get("aria-labelledby") == f"{title.get('id')} {text.get('id')}"
    assert title.text and text.text and re.search(r"\d", text.text)
    assert not {element.tag.split("}")[1] for element in root.iter()} & {"script", "image", "foreignObject", "a"}
    assert svg == CHARTS[name]()


@pytest.mark.parametrize("name", CHARTS)
def test_colours_are_variables_with_values_of_their_own(name: str) -> None:
    svg = CHARTS[name]()
    colours = re.findall(r'(?:fill|stroke)="([^"]*)"', svg)
    assert {colour for colour in colours if not colour.startswith("var(--")} <= {"none", "transparent"}
    assert any(re.fullmatch(r"var\(--[a-z]+, #[0-9a-f]{6}\)", colour) for colour in colours)


def test_names_are_text() -> None:
    svg = plots.languages(WHOLE)
    assert "<script" not in svg and "\u202e" not in svg and "&lt;script&gt;" in svg
    assert "not stated" in svg


def texts(svg: str) -> list[str]:
    return [text for element in ElementTree.fromstring(svg).iter() if (text := (element.text or "").strip())]


def test_lengths_are_in_their_order_and_many_sources_end_in_the_rest() -> None:
    found = texts(plots.caption_lengths(WHOLE))
    order = [found.index(label) for label in ("1", "2-3", "16-31", ">=1024")]
    assert order == sorted(order)
    assert "8 more" in texts(plots.sources(WHOLE))


def test_ids_of_two_charts_on_a_page_differ() -> None:
    ids = [re.findall(r'\bid="([^"]+)"', make()) for make in CHARTS.values()]
    every = [one for found in ids for one in found]
    assert len(every) == len(set(every))


def test_where_there_is_nothing_there_is_no_chart() -> None:
    empty: Any = health()
    assert [plots.sizes(empty), plots.scores(empty), plots.drifts([])] == ["", "", ""]
