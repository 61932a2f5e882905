"""Health as charts: SVG text that follows the colours of the page it stands in, and says what it shows.

Vega-Lite draws them, by way of Altair and vl-convert (the extra `report`).
Colours are CSS variables with values for where there are none, so that a chart
is read in light and in dark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from vlmdata.console import visible
from vlmdata.errors import ConfigError
from vlmdata.health.drift import Moved
from vlmdata.health.health import Health

Row = dict[str, Any]

_WIDTH, _BAR = 300, 22
_LONGEST_LIST = 12
_MOST_LANGUAGES = 6
_NOT_STATED = "not stated"

_INK, _QUIET, _LINE, _PAPER = "#010101", "#010102", "#010103", "#010104"
_KEPT, _REJECTED, _HELD, _FAILED, _PLAIN = "#010105", "#010106", "#010107", "#010108", "#010109"
_VARIABLES = {
    _INK: "var(--ink, #1f2328)",
    _QUIET: "var(--quiet, #59636e)",
    _LINE: "var(--line, #d1d9e0)",
    _PAPER: "var(--paper, #ffffff)",
    _KEPT: "var(--kept, #2a7d5f)",
    _REJECTED: "var(--rejected, #b5483f)",
    _HELD: "var(--held, #b07d1a)",
    _FAILED: "var(--failed, #6b5b95)",
    _PLAIN: "var(--plain, #3b6ea8)",
}
"""Stand-ins that Vega takes for colours, and what they become."""

FATES = {"kept": _KEPT, "held": _HELD, "rejected": _REJECTED, "failed": _FAILED}


def require_plotting() -> None:
    """Fail in one line where there is nothing to plot with.

    Raises:
        ConfigError: the extra is not installed.
    """
    from importlib.util import find_spec

    missing = [name for name in ("altair", "vl_convert") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"report: {' and '.join(missing)} not installed; install the extra: pip install 'vlmdata[report]'"
        )


def funnel(told: Mapping[str, Any]) -> str:
    """What came into each stage and what became of it; `told` is `status.describe_run`'s."""
    reached = {stage: numbers for stage, numbers in told["stages"].items() if numbers["in"]}
    rows = [
        {"stage": stage, "fate": fate, "order": place, "count": numbers[fate]}
        for stage, numbers in reached.items()
        for place, fate in enumerate(FATES)
    ]
    said = "; ".join(f"{stage}: {numbers['kept']:,} of {numbers['in']:,} kept" for stage, numbers in reached.items())

    def draw(alt: Any) -> Any:
        scale = alt.Scale(domain=list(FATES), range=list(FATES.values()))
        return (
            _chart(alt, rows, width=_WIDTH)
            .mark_bar(size=_BAR, stroke=_PAPER, strokeWidth=1)
            .encode(
                x=alt.X("count:Q", title="samples", axis=_counts(alt)),
                y=alt.Y("stage:N", title=None, sort=None, axis=_named(alt, [row["stage"] for row in rows])),
                color=alt.Color("fate:N", scale=scale, title=None, sort=None, legend=alt.Legend(orient="top")),
                order=alt.Order("order:Q"),
            )
            .properties(height=alt.Step(34))
        )

    return _svg("The funnel", f"Samples by stage and fate. {said}.", draw, rows)


def sizes(health: Health) -> str:
    """Pictures by their shorter side."""
    return _columns("Shorter side", "px", "pictures", counted(health, "size"))


def aspect_ratios(health: Health) -> str:
    """Pictures by shape, from the tallest to the widest."""
    return _bars("Aspect ratio", "pictures", counted(health, "aspect_ratio"))


def caption_lengths(health: Health) -> str:
    """Captions by their number of words."""
    return _columns("Length of captions", "words", "captions", words(health))


def languages(health: Health) -> str:
    """Captions by language, the most frequent first."""
    return _bars("Languages", "captions", counted(health, "language"))


def sources(health: Health) -> str:
    """Pictures by where they come from, the most frequent first."""
    return _bars("Where pictures come from", "pictures", counted(health, "source"))


def scores(health: Health) -> str:
    """A histogram of scores for each language, one below the other over one axis."""
    every = health.scores.to_pylist()
    totals: dict[str, int] = {}
    for row in every:
        totals[row["language"]] = totals.get(row["language"], 0) + row["count"]
    ranked = sorted(totals, key=lambda tag: (-totals[tag], tag))[:_MOST_LANGUAGES]
    names = {tag: f"{short_line(tag)} ({totals[tag]:,})" for tag in ranked}
    rows = [
        {"language": names[row["language"]], **{name: row[name] for name in ("low", "high", "count")}}
        for row in every
        if row["language"] in names
    ]
    said = ", ".join(f"{short_line(tag)} {totals[tag]:,}" for tag in ranked)

    def draw(alt: Any) -> Any:
        above = alt.Header(labelAngle=0, labelAlign="left", labelOrient="top", labelAnchor="start", labelPadding=2)
        return (
            _chart(alt, rows, width=_WIDTH)
            .mark_bar(color=_PLAIN, stroke=_PAPER, strokeWidth=0.5)
            .encode(
                x=alt.X("low:Q", bin="binned", title="CLIPScore", axis=alt.Axis(format=".2f", tickCount=6)),
                x2="high:Q",
                y=alt.Y("count:Q", title=None, axis=_counts(alt, 2)),
            )
            .properties(height=46)
            .facet(row=alt.Row("language:N", sort=list(names.values()), title=None, header=above), spacing=8)
            .resolve_scale(y="independent")
        )

    return _svg("Scores by language", f"CLIPScores of captions, by language: {said}.", draw, rows)


def drifts(moved: Sequence[Moved], bound: float = 0.2) -> str:
    """The population stability index of each distribution beside the version before, and the bound."""
    rows = [
        {"value": short_line(one.name.replace("_", " ")), "psi": round(one.psi, 4), "over": one.over}
        for one in moved
        if one.psi is not None
    ][:_LONGEST_LIST]
    said = "; ".join(f"{row['value']} {row['psi']:.2f}" for row in rows)

    def draw(alt: Any) -> Any:
        chart = _chart(alt, rows, width=_WIDTH)
        color = alt.condition("datum.over", alt.value(_REJECTED), alt.value(_PLAIN))
        bars = chart.mark_bar(size=12).encode(
            x=alt.X("psi:Q", title="population stability index", axis=alt.Axis(tickCount=3)),
            y=_names(alt, rows),
            color=color,
        )
        line = alt.Chart(alt.Data(values=[{"bound": bound}])).mark_rule(color=_HELD, strokeDash=[4, 3], strokeWidth=1.5)
        return (bars + line.encode(x="bound:Q")).properties(height=alt.Step(24))

    return _svg("What moved", f"Population stability index, bound {bound:g}. {said}.", draw, rows)


def words(health: Health) -> list[Row]:
    """Captions by their number of words, the fewest first."""
    return sorted(counted(health, "words"), key=lambda row: int(re.sub(r"\D.*", "", row["value"].lstrip("<>="))))


def counted(health: Health, what: str) -> list[Row]:
    """`value` and `count` of a distribution, as they are ordered; the rest in one row."""
    counts = health.distribution(what).items()
    pairs = [(_NOT_STATED if value is None else short_line(value), count) for value, count in counts]
    if len(pairs) > _LONGEST_LIST:
        rest = sum(count for _, count in pairs[_LONGEST_LIST:])
        pairs = [*pairs[:_LONGEST_LIST], (f"{len(pairs) - _LONGEST_LIST:,} more", rest)]
    return [{"value": value, "count": count} for value, count in pairs]


def _columns(title: str, unit: str, of: str, rows: list[Row]) -> str:
    crowded = sum(len(row["value"]) + 2 for row in rows) > _WIDTH / 7

    def draw(alt: Any) -> Any:
        return (
            _chart(alt, rows, width=_WIDTH)
            .mark_bar(color=_PLAIN)
            .encode(
                x=alt.X("value:N", sort=None, title=unit, axis=alt.Axis(labelAngle=-40 if crowded else 0)),
                y=alt.Y("count:Q", title=of, axis=_counts(alt, 4)),
            )
            .properties(height=170)
        )

    return _svg(title, _said(title, of, rows), draw, rows)


def _bars(title: str, of: str, rows: list[Row]) -> str:
    def draw(alt: Any) -> Any:
        chart = _chart(alt, rows, width=_WIDTH)
        bars = chart.mark_bar(color=_PLAIN, size=13).encode(
            x=alt.X("count:Q", title=of, axis=_counts(alt, 4)), y=_names(alt, rows)
        )
        return bars.properties(height=alt.Step(22))

    return _svg(title, _said(title, of, rows), draw, rows)


def _said(title: str, of: str, rows: Sequence[Row]) -> str:
    total = sum(row["count"] for row in rows)
    most = sorted(rows, key=lambda row: -row["count"])[:4]
    shares = ", ".join(f"{row['value']} {row['count'] / total:.0%}" for row in most) if total else "none"
    return f"{title} of {total:,} {of}: {shares}."


def _names(alt: Any, rows: Sequence[Row]) -> Any:
    return alt.Y("value:N", sort=None, title=None, axis=_named(alt, [row["value"] for row in rows]))


def _named(alt: Any, labels: Sequence[str]) -> Any:
    """An axis of names, with room for them in whatever font the reader has."""
    return alt.Axis(labelLimit=160, minExtent=min(170, 12 + 7 * max(map(len, labels))))


def _counts(alt: Any, ticks: int = 6) -> Any:
    return alt.Axis(format="~s", tickCount=ticks, tickMinStep=1)


def _chart(alt: Any, rows: list[Row], width: int) -> Any:
    return alt.Chart(alt.Data(values=rows)).properties(width=width)


def _svg(title: str, description: str, draw: Callable[[Any], Any], rows: Sequence[Row]) -> str:
    """The chart as SVG; where there is nothing to show, no text at all."""
    if not rows:
        return ""
    require_plotting()
    import altair
    import vl_convert

    config: dict[str, Any] = {
        "aria": False,
        "background": None,
        "font": "system-ui, -apple-system, 'Segoe UI', sans-serif",
        "view": {"stroke": None},
        "axis": {
            "domainColor": _LINE,
            "gridColor": _LINE,
            "tickColor": _LINE,
            "labelColor": _QUIET,
            "titleColor": _QUIET,
            "labelFontSize": 11.5,
            "titleFontSize": 11.5,
            "titleFontWeight": "normal",
            "labelOverlap": "greedy",
        },
        "axisY": {"grid": True, "domain": False, "ticks": False},
        "axisBand": {"grid": False, "domain": False, "ticks": False, "labelColor": _INK},
        "header": {"labelColor": _INK, "labelFontSize": 11.5},
        "legend": {"labelColor": _INK, "labelFontSize": 12, "symbolType": "square"},
    }
    spec = {**draw(altair).to_dict(validate=False), "config": config}
    return _described(vl_convert.vegalite_to_svg(spec), title, description)


def _described(svg: str, title: str, description: str) -> str:
    """With a title and a description in the place of Vega's own roles, colours by name, and ids that are its own."""
    own = re.sub(r"\W+", "-", title.lower())
    svg = re.sub(r'(id="|url\(#)(clip|gradient)', rf"\1{own}-\2", svg)
    svg = re.sub(r' (?:role|aria-[a-z]+)="[^"]*"', "", svg)
    svg = re.sub(r"#01010\d", lambda found: _VARIABLES[found[0]], svg)
    size = re.search(r'width="([\d.]+)" height="[\d.]+" viewBox="[^"]*"', svg)
    named = f'<svg role="img" aria-labelledby="{own}-title {own}-text" data-width="{size[1] if size else 0}"'
    words = f'<title id="{own}-title">{escape(title)}</title><desc id="{own}-text">{escape(description)}</desc>'
    head, body = svg.split(">", 1)
    return f"{head.replace('<svg', named, 1)}>{words}{body}"


def short_line(text: str) -> str:
    """What a stranger wrote, on one short line."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= 40 else f"{line[:39]}…"
