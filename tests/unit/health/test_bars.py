"""A card's charts: whole SVG that shows every count, holds names as text, and needs nothing installed."""

from __future__ import annotations

import sys
from dataclasses import replace
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from tests.unit.health.test_plots import HOSTILE, WHOLE, health
from vlmdata.health.bars import plots
from vlmdata.health.health import SCORES

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    """Every text of a chart that is well formed."""
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg" and {one.tag.removeprefix(SVG) for one in root} == {"title", "style", "text", "rect"}
    return ["".join(one.itertext()) for one in root.iter(f"{SVG}text")]


def widths(svg: str) -> list[float]:
    return [float(one.attrib["width"]) for one in ElementTree.fromstring(svg).iter(f"{SVG}rect")]


def test_all_of_them_and_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("altair", "vl_convert"):
        monkeypatch.setitem(sys.modules, package, None)
    drawn = plots(WHOLE)
    assert list(drawn) == ["shorter_side", "aspect_ratio", "caption_length", "languages", "scores"]
    assert drawn == plots(WHOLE)


def test_bars_are_as_long_as_their_counts_and_none_has_none() -> None:
    svg = plots(WHOLE)["shorter_side"]
    assert texts(svg)[1:] == ["<224", "0", "224-255", "3", ">=1024", "1"]
    assert widths(svg) == [0, 300, 100]
    assert widths(plots(health(size={"a": 3_000_000, "b": 1}))["shorter_side"]) == [300, 1]
    assert widths(plots(health(size={"a": 0}))["shorter_side"]) == [0]


def test_words_come_in_order_and_names_are_text() -> None:
    assert texts(plots(WHOLE)["caption_length"])[1::2] == ["1", "2-3", "16-31", ">=1024"]
    drawn = plots(WHOLE)
    assert any("<script>" in text and "\u202e" not in text for text in texts(drawn["languages"]))
    assert any(text.startswith("<script>") and text.endswith(": 3") is False for text in texts(drawn["scores"]))
    assert HOSTILE not in drawn["scores"]


def test_scores_of_each_model_and_language_over_one_scale() -> None:
    rows = [
        {"model": "m", "language": language, "low": low, "high": low + 0.02, "count": count}
        for language, low, count in (("en", 0.2, 30), ("en", 0.3, 10), ("fr", 0.1, 5))
    ]
    svg = plots(replace(WHOLE, scores=pa.Table.from_pylist(rows, schema=SCORES)))["scores"]
    assert texts(svg) == ["CLIPScore: captions", *("en, by m: 40", "0.10", "0.32"), *("fr, by m: 5", "0.10", "0.32")]
    left = [float(one.attrib["x"]) for one in ElementTree.fromstring(svg).iter(f"{SVG}rect")]
    assert left[2] == 10 < left[0] < left[1]


def test_of_nothing_there_is_none() -> None:
    assert plots(health()) == {}
