"""Health as people read it: lines for a terminal, markdown for a page; what strangers wrote is shown as text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from rich.cells import cell_len

from vlmdata.console import visible
from vlmdata.health.drift import Moved
from vlmdata.health.health import Health

_NONE = "–"
_NOT_STATED = "not stated"
_LONGEST_LIST = 15
_LONGEST_TEXT = 60
_BARS = 32
_HEIGHTS = "·▁▂▃▄▅▆▇█"

_TITLES = {
    "size": ("Shorter side", "px", "images"),
    "aspect_ratio": ("Aspect ratio", "shape", "images"),
    "license": ("Licences", "licence", "images"),
    "source": ("Where images come from", "source", "images"),
    "language": ("Languages", "language", "captions"),
    "origin": ("Where captions come from", "origin", "captions"),
}

Row = Sequence[str]


@dataclass(frozen=True)
class _Section:
    """A table with a title; `said` are the columns that hold words from the data."""

    title: str
    head: Row
    rows: Sequence[Row]
    said: frozenset[int] = frozenset()


def as_lines(health: Health, moved: Sequence[Moved] = ()) -> list[str]:
    """Lines of plain text, columns aligned; with what moved, if that is given."""
    lines = [_title(health)]
    for section in _sections(health, moved):
        lines += ["", section.title, *_aligned([section.head, *section.rows])]
    return lines


def moved_as_lines(moved: Sequence[Moved]) -> list[str]:
    """What moved, and nothing else; no line if nothing was compared."""
    section = _moves(moved)
    return ["", "Health", *_aligned([section.head, *section.rows])] if section.rows else []


def as_markdown(health: Health, moved: Sequence[Moved] = ()) -> str:
    """Markdown; with what moved, if that is given."""
    return "\n\n".join([f"## {_title(health)}", *map(_markdown, _sections(health, moved))]) + "\n"


def as_sections(health: Health, without: Collection[str] = ()) -> str:
    """The same for a page that has a title: no heading, nothing of the run, and less some of the tables.

    Args:
        health: What is told of.
        without: `stages`, `figures`, `lengths`, `scores` (judged and histogram), or names of distributions.
    """
    named = [
        ("stages", _stages(health)),
        ("figures", _figures(health)),
        *((what, _distribution(health, what)) for what in _TITLES),
        ("lengths", _lengths(health)),
        ("scores", _judged(health)),
        ("scores", _histogram(health)),
    ]
    return "\n\n".join(_markdown(section) for name, section in named if section.rows and name not in without)


def as_rows(health: Health) -> list[dict[str, str]]:
    """One row for each value of what images and captions are counted by, the commonest where they are many."""
    sections = [_distribution(health, what) for what in _TITLES]
    return [
        {"counted": section.title, "value": _plain(value), "count": count, "share": share}
        for section in sections
        for value, count, share in section.rows
    ]


def _markdown(section: _Section) -> str:
    rows = [[_cell(text, place in section.said) for place, text in enumerate(row)] for row in section.rows]
    table = [section.head, ["---"] * len(section.head), *rows]
    return "\n".join([f"### {section.title}", "", *(f"| {' | '.join(row)} |" for row in table)])


def _title(health: Health) -> str:
    return f"Health of {health.dataset}, run {health.run}: what {health.stage} kept"


def _sections(health: Health, moved: Sequence[Moved]) -> list[_Section]:
    distributions = [_distribution(health, what) for what in _TITLES]
    counted = [_lengths(health), _judged(health), _histogram(health)]
    every = [_moves(moved), _stages(health), _figures(health), *distributions, *counted]
    return [section for section in every if section.rows]


def _moves(moved: Sequence[Moved]) -> _Section:
    rows = [
        [
            one.name,
            (_NOT_STATED if one.value is None else one.value) if one.psi is not None else _NONE,
            *(_share(n) if one.psi is not None else _number(n) for n in (one.before, one.now)),
            _number(one.psi),
            "over the bound" if one.over else "",
        ]
        for one in moved
    ]
    head = ["what", "moved most", "before", "now", "psi", ""]
    return _Section("Since the run before", head, rows, frozenset({0, 1}))


def _stages(health: Health) -> _Section:
    counts = ("in", "kept", "rejected", "held", "failed")
    rows = [
        [
            row["stage"],
            *(f"{row[name]:,}" for name in counts),
            _share(row["rejection_rate"]),
            _number(row["mean_score"]),
        ]
        for row in health.stages.to_pylist()
    ]
    return _Section("Stages", ["stage", *counts, "rate", "mean score"], rows)


def _figures(health: Health) -> _Section:
    rows = [[name.replace("_", " "), _number(value)] for name, value in health.figures.items()]
    return _Section("Figures", ["figure", "value"], rows)


def _distribution(health: Health, what: str) -> _Section:
    title, value, of = _TITLES[what]
    counts = health.distribution(what)
    total = counts.total()
    rows = [
        [_NOT_STATED if name is None else name, f"{n:,}", _share(n / total if total else None)]
        for name, n in counts.items()
    ]
    return _Section(title, [value, of, "share"], _shortened(rows), frozenset({0}))


def _lengths(health: Health) -> _Section:
    rows = [
        [row["unit"], row["language"] or "all", f"{row['count']:,}", *map(_number, _percentiles(row))]
        for unit in dict.fromkeys(health.lengths["unit"].to_pylist())
        for row in [row for row in health.lengths.to_pylist() if row["unit"] == unit][:_LONGEST_LIST]
    ]
    head = ["unit", "language", "captions", "p5", "median", "p95"]
    return _Section("Length of captions", head, rows, frozenset({1}))


def _percentiles(row: dict[str, Any]) -> list[float]:
    return [row["p5"], row["median"], row["p95"]]


def _judged(health: Health) -> _Section:
    rows = [
        [
            row["language"],
            row["model"] or "no model knows it",
            f"{row['count']:,}",
            f"{row['scored']:,}",
            _number(row["mean_score"]),
        ]
        for row in health.judged.to_pylist()
    ]
    head = ["language", "judged by", "captions", "scored", "mean score"]
    return _Section("Scores", head, _shortened(rows), frozenset({0, 1}))


def _histogram(health: Health) -> _Section:
    """A line of bars for each language and its judge, all over one axis; the highest bar of each line is its own."""
    bins = health.scores.to_pylist()
    if not bins:
        return _Section("Scores, from low to high", [], [])
    low, high = min(row["low"] for row in bins), max(row["high"] for row in bins)
    counts: dict[tuple[str, str], list[int]] = {}
    for row in bins:
        place = min(_BARS - 1, int((row["low"] - low) / (high - low) * _BARS))
        counts.setdefault((row["language"], row["model"]), [0] * _BARS)[place] += row["count"]
    rows = [[*who, f"{low:.2f}", _bars(heights), f"{high:.2f}"] for who, heights in counts.items()]
    head = ["language", "judged by", "from", "captions", "to"]
    return _Section("Scores, from low to high", head, _shortened(rows), frozenset({0, 1}))


def _bars(counts: Sequence[int]) -> str:
    """One character a bin; what is there at all is seen."""
    return "".join(_HEIGHTS[ceil(count / max(counts) * (len(_HEIGHTS) - 1))] for count in counts)


def _shortened(rows: Sequence[Row]) -> list[Row]:
    rest = len(rows) - _LONGEST_LIST
    if rest <= 0:
        return list(rows)
    return [*rows[:_LONGEST_LIST], [f"{rest:,} more", *["…"] * (len(rows[0]) - 1)]]


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3f}" if abs(value) < 1 else f"{value:,.1f}"


def _share(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1%}"


def _aligned(rows: Sequence[Row]) -> list[str]:
    """The first column to the left; the others too, if they hold words."""
    plain = [[_plain(text) for text in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*plain, strict=True)]
    numeric = [place > 0 and all(_is_number(row[place]) for row in plain[1:]) for place in range(len(widths))]
    return ["  " + "  ".join(map(_padded, row, widths, numeric)).rstrip() for row in plain]


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text[:1] == "-" or text in {_NONE, "…", ""}


def _padded(text: str, width: int, numeric: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if numeric else text + space


def _cell(text: str, said: bool) -> str:
    """Words from the data as code, in which no markup is read."""
    return "`" + _plain(text).replace("`", "'").replace("|", "\\|") + "`" if said else text


def _plain(text: str) -> str:
    line = " ".join(visible(" ".join(text.split())).split())
    return line if len(line) <= _LONGEST_TEXT else line[: _LONGEST_TEXT - 1] + "…"


def warnings(moved: Iterable[Moved]) -> list[str]:
    """One line for each distribution that drifted over the bound."""
    return [
        f"{_plain(one.name)} moved since the run before (PSI {one.psi:.2f}): "
        f"{_NOT_STATED if one.value is None else _plain(one.value)} went from {_share(one.before)} to {_share(one.now)}"
        for one in moved
        if one.over and one.psi is not None
    ]
