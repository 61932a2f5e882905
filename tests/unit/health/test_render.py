"""What strangers wrote is shown as text, in a terminal, on a page and in a picture."""

from __future__ import annotations

import io
import unicodedata
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlmdata.health.drift import Moved
from vlmdata.health.health import DISTRIBUTIONS, SCORES, Health
from vlmdata.health.histogram import score_histogram
from vlmdata.health.measure import measure_health
from vlmdata.health.render import as_lines, as_markdown, warnings
from vlmdata.runs import existing_run


@pytest.fixture(scope="module")
def health(story: Any) -> Health:
    return measure_health(existing_run(story.dataset))


def with_licences(health: Health, licences: dict[str | None, int]) -> Health:
    rows = [{"what": "license", "value": value, "count": count} for value, count in licences.items()]
    return replace(health, distributions=pa.Table.from_pylist(rows, schema=DISTRIBUTIONS))


def rows_of(markdown: str, title: str) -> list[str]:
    section = markdown.split(f"### {title}\n")[1].split("\n### ")[0]
    return [line for line in section.splitlines() if line.startswith("|")]


@given(st.text(min_size=1, max_size=80))
def test_a_licence_is_one_cell_of_code(health: Health, licence: str) -> None:
    lines = rows_of(as_markdown(with_licences(health, {licence: 7})), "Licences")
    assert len(lines) == 3
    assert lines[2].startswith("| `")
    assert lines[2].endswith("` | 7 | 100.0% |")
    assert lines[2].count("`") == 2
    assert lines[2].replace("\\|", "").count("|") == 4


@given(st.text(min_size=1, max_size=80))
def test_no_line_commands_a_terminal(health: Health, licence: str) -> None:
    told = with_licences(health, {licence: 7})
    for line in [*as_lines(told), *warnings([Moved(licence, 0.1, 0.4, 0.5, True, licence)])]:
        assert not [letter for letter in line if unicodedata.category(letter) in {"Cc", "Zl", "Zp"}]
        assert "\u202e" not in line


def test_long_lists_are_cut_short(health: Health) -> None:
    told = with_licences(health, {f"licence {number}": 1 for number in range(40)})
    assert len(rows_of(as_markdown(told), "Licences")) == 2 + 15 + 1
    assert any("25 more" in line for line in as_lines(told))


def test_a_licence_that_is_not_stated(health: Health) -> None:
    lines = as_lines(with_licences(health, {None: 1, "CC0": 3}))
    assert ["not", "stated", "1", "25.0%"] in [line.split() for line in lines]


def test_what_moved_comes_first(health: Health) -> None:
    moved = [Moved("language", 0.9, 0.5, 0.81, True, "en"), Moved("images", 3, None, None, False)]
    lines = rows_of(as_markdown(health, moved), "Since the run before")
    assert lines[2:] == [
        "| `language` | `en` | 90.0% | 50.0% | 0.810 | over the bound |",
        "| `images` | `–` | 3 | – | – |  |",
    ]
    assert warnings(moved) == ["language moved since the run before (PSI 0.81): en went from 90.0% to 50.0%"]
    assert as_lines(health, moved)[2] == "Since the run before"


def test_the_histogram_has_a_panel_for_each_language(health: Health) -> None:
    def height(languages: list[str]) -> int:
        rows = [{"model": "m", "language": tag, "low": 0.3, "high": 0.32, "count": 2} for tag in languages]
        told = replace(health, scores=pa.Table.from_pylist(rows, schema=SCORES))
        with Image.open(io.BytesIO(score_histogram(told))) as picture:
            return picture.height

    one, two, many = height(["en"]), height(["en", "中文\n\x1b"]), height([f"x{n}" for n in range(60)])
    assert one < two < many < 2_000


def test_higher_bars_hold_more(health: Health) -> None:
    def ink(counts: dict[float, int]) -> list[int]:
        rows = [
            {"model": "m", "language": "en", "low": low, "high": low + 0.02, "count": n} for low, n in counts.items()
        ]
        told = replace(health, scores=pa.Table.from_pylist(rows, schema=SCORES))
        with Image.open(io.BytesIO(score_histogram(told))) as picture:
            bars = (np.asarray(picture.convert("RGB")) == (70, 110, 180)).all(axis=2)
        return [int(height) for height in bars.sum(axis=0)]

    columns = [height for height in ink({0.2: 10, 0.22: 20}) if height]
    assert 2 * columns[0] == pytest.approx(columns[-1], abs=2)


def test_every_stage_has_its_line(health: Health) -> None:
    rows = [line.split("|")[1].strip() for line in rows_of(as_markdown(health), "Stages")[2:]]
    assert rows == health.stages["stage"].to_pylist()


def test_scores_are_a_line_of_bars_over_one_axis(health: Health) -> None:
    rows = [("en", -0.1, 0.0, 1), ("en", 0.2, 0.3, 8), ("de", 0.0, 0.1, 4)]
    table = [{"model": "m", "language": tag, "low": low, "high": high, "count": n} for tag, low, high, n in rows]
    told = replace(health, scores=pa.Table.from_pylist(table, schema=SCORES))
    english, german = (line.split() for line in as_lines(told) if {"-0.10", "0.30"} <= set(line.split()))
    assert english[:3] == ["en", "m", "-0.10"] and german[0] == "de" and len(english[3]) == len(german[3]) == 32
    assert english[3].strip("·")[0] == "▁" and english[3].strip("·")[-1] == "█" and english[3][0] == "▁"
    assert german[3].strip("·") == "█" and german[3].index("█") == 8
    nothing = replace(health, scores=SCORES.empty_table())
    assert "Scores, from low to high" not in as_lines(nothing)
