"""The score histogram as a picture, a row of bars for each language."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from vlmdata.health.buckets import bin_at, bin_low
from vlmdata.health.health import Health

_WIDTH, _PANEL, _MARGIN, _LINE = 720, 150, 16, 14
_BARS = 80
_MOST_PANELS = 8
_INK, _PALE, _BAR, _PAPER = (32, 32, 32), (160, 160, 160), (70, 110, 180), (255, 255, 255)

Bars = list[tuple[int, int]]
"""Position of a bin, and how many captions are in it."""


def score_histogram(health: Health) -> bytes:
    """A PNG: CLIPScore to the right, captions upwards; the languages with most captions, all on one scale of scores."""
    panels = _panels(health)
    image = Image.new("RGB", (_WIDTH, _MARGIN * 2 + _PANEL * max(len(panels), 1)), _PAPER)
    draw = ImageDraw.Draw(image)
    if not panels:
        _write(draw, _MARGIN, _MARGIN, "No caption has a score.", _INK)
    scale = _scale([bars for _, bars in panels])
    for number, (title, bars) in enumerate(panels):
        _panel(draw, _MARGIN + number * _PANEL, title, bars, scale)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _panels(health: Health) -> list[tuple[str, Bars]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in health.scores.to_pylist():
        found.setdefault((row["language"], row["model"]), []).append(row)
    ranked = sorted(found.items(), key=lambda item: (-sum(row["count"] for row in item[1]), item[0]))
    return [_named(*pair) for pair in ranked[:_MOST_PANELS]]


def _named(judged: tuple[str, str], rows: Sequence[dict[str, Any]]) -> tuple[str, Bars]:
    language, model = (_ascii(text) for text in judged)
    title = f"{language}: {sum(row['count'] for row in rows):,} captions, scored by {model}"
    return title, [(bin_at(row["low"]), row["count"]) for row in rows]


def _scale(panels: Sequence[Bars]) -> range:
    """The bins that hold any, in all panels, and one more at each end."""
    bins = [position for bars in panels for position, _ in bars]
    return range(min(bins) - 1, max(bins) + 2) if bins else range(1)


def _panel(draw: ImageDraw.ImageDraw, top: int, title: str, bars: Bars, scale: range) -> None:
    _write(draw, _MARGIN, top, title, _INK)
    base, step = top + _LINE + 6 + _BARS, (_WIDTH - 2 * _MARGIN) / len(scale)
    highest = max(number for _, number in bars)
    for position, number in bars:
        left = _MARGIN + (position - scale.start) * step
        # A bin that holds one caption among millions is still seen.
        height = max(1, round(_BARS * number / highest))
        draw.rectangle((left, base - height, left + max(step - 2, 1), base), fill=_BAR)
    draw.line((_MARGIN, base + 1, _WIDTH - _MARGIN, base + 1), fill=_PALE)
    for position in scale[:: max(1, len(scale) // 10)]:
        left = _MARGIN + (position - scale.start) * step
        _write(draw, left, base + 4, f"{bin_low(position):.2f}", _PALE)


def _write(draw: ImageDraw.ImageDraw, left: float, top: float, text: str, ink: tuple[int, int, int]) -> None:
    draw.text((left, top), text, fill=ink, font=ImageFont.load_default())


def _ascii(text: str) -> str:
    """What the built-in font has letters for."""
    letters = "".join(letter if letter.isprintable() else " " for letter in text)
    short = letters.encode("ascii", "backslashreplace").decode()
    return short if len(short) <= 60 else short[:57] + "..."
