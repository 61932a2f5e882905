"""Health as plain bars: SVG for a card, which is read wherever an export goes; nothing has to be installed to draw it.

The same health gives the same bytes. Colours follow the reader's light or dark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from vlmdata.health.health import Health
from vlmdata.health.plots import Row, counted, short_line, words

_WIDTH, _LINE, _LABEL, _BAR, _COLUMNS = 640, 18, 250, 300, 80
_MOST_PANELS = 6
_STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#1f2328}rect{fill:#3b6ea8}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}rect{fill:#6ea8e0}}</style>"
)


def plots(health: Health) -> dict[str, str]:
    """SVG by name: sizes, shapes, lengths, languages and scores, as far as there is any."""
    drawn = {
        "shorter_side": _bars("Shorter side, px: pictures", counted(health, "size")),
        "aspect_ratio": _bars("Aspect ratio: pictures", counted(health, "aspect_ratio")),
        "caption_length": _bars("Words: captions", words(health)),
        "languages": _bars("Languages: captions", counted(health, "language")),
        "scores": _scores(health),
    }
    return {name: svg for name, svg in drawn.items() if svg}


def _bars(title: str, rows: Sequence[Row]) -> str:
    """A bar a row, the longest for the most."""
    most = max([1, *(row["count"] for row in rows)])
    parts = [
        part
        for place, row in enumerate(rows, 1)
        for part in (
            _text(_LABEL - 8, place, row["value"], end=True),
            _rect(_LABEL, place * _LINE + 3, _length(row["count"], most, _BAR), _LINE - 5),
            _text(_LABEL + _BAR * row["count"] / most + 6, place, f"{row['count']:,}"),
        )
    ]
    return _svg(title, len(rows) + 1, parts) if rows else ""


def _scores(health: Health) -> str:
    """Columns of scores for each language and model, the most frequent first, all from the same score on."""
    panels: dict[tuple[str, str], list[Row]] = {}
    for row in health.scores.to_pylist():
        panels.setdefault((row["language"], row["model"]), []).append(row)
    ranked = sorted(panels.items(), key=lambda item: (-sum(row["count"] for row in item[1]), item[0]))[:_MOST_PANELS]
    lines, parts = 1, list[str]()
    for (language, model), rows in ranked:
        parts += _panel(lines, f"{language}, by {model}", rows, [row for _, rows in ranked for row in rows])
        lines += _COLUMNS // _LINE + 4
    return _svg("CLIPScore: captions", lines, parts) if ranked else ""


def _panel(line: int, title: str, rows: Sequence[Row], every: Sequence[Row]) -> Iterator[str]:
    low, high = min(row["low"] for row in every), max(row["high"] for row in every)
    step, most = (_WIDTH - 20) / (high - low), max(row["count"] for row in rows)
    base = line * _LINE + _COLUMNS + 6
    yield _text(10, line, f"{title}: {sum(row['count'] for row in rows):,}")
    for row in rows:
        height = _length(row["count"], most, _COLUMNS)
        width = (row["high"] - row["low"]) * step - 1
        yield _rect(10 + (row["low"] - low) * step, base + _LINE - height, width, height)
    bottom = line + _COLUMNS // _LINE + 2
    yield _text(10, bottom, f"{low:.2f}")
    yield _text(_WIDTH - 10, bottom, f"{high:.2f}", end=True)


def _length(count: int, most: int, whole: int) -> int:
    """One among millions is still seen, and none is not."""
    return max(min(1, count), round(whole * count / most))


def _svg(title: str, lines: int, parts: Sequence[str]) -> str:
    size = f'width="{_WIDTH}" height="{lines * _LINE + 8}" viewBox="0 0 {_WIDTH} {lines * _LINE + 8}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{escape(title)}</title>{_STYLE}'
    return "".join([head, _text(10, 0, title), *parts, "</svg>\n"])


def _rect(left: float, top: float, width: float, height: float) -> str:
    return f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _text(left: float, line: int, words: str, *, end: bool = False) -> str:
    """On its line; what a stranger wrote is cut, and nothing but text."""
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{left:.1f}" y="{line * _LINE + 14}"{anchor}>{escape(short_line(words))}</text>'
