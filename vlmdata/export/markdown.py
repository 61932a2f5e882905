"""Markdown of a card: tables, and words from strangers that stay words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

NONE = "-"
LONGEST_LIST = 30
"""Rows of a table; the rest is counted in one more."""
_LONGEST = 300
"""Characters of one thing that is named; where bounds come from, and what a check found, are shorter."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are text, or code where they are in backticks."""
    lines = [head, ["---"] * len(head), *[[text(cell) for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def counted(title: str, what: str, of: str, counts: Counter[str | None], before: str = "") -> str:
    """A section of values and how many there are of each, the most frequent first; null is `not stated`."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0] or ""))
    shown, rest = ranked[:LONGEST_LIST], ranked[LONGEST_LIST:]
    rows = [["not stated" if value is None else code(value), f"{n:,}"] for value, n in shown]
    if rest:
        rows.append([f"{len(rest):,} others", f"{sum(n for _, n in rest):,}"])
    heading = f"## {title}\n\n" if title else ""
    return heading + before + (table([what, of], rows) if rows else "None.")


def number(value: float | None) -> str:
    """Four figures that count."""
    return NONE if value is None else f"{value:.4g}"


def code(value: str) -> str:
    """Words in which no markup is read."""
    return f"`{short(value).replace('`', chr(39))}`"


def text(value: str) -> str:
    """Text that cannot end a table cell, nor be read as HTML or a link outside code."""
    if re.fullmatch(r"`[^`]*`", value):
        return value.replace("|", "\\|")
    return re.sub(r"[<>\[\]*`|\\]", lambda found: f"&#{ord(found[0])};", short(value))


def block(content: str, language: str = "") -> str:
    """Lines of code, behind a fence that is longer than any in them."""
    ticks = max([2, *(len(run) for run in re.findall(r"`+", content))]) + 1
    return f"{'`' * ticks}{language}\n{content.rstrip()}\n{'`' * ticks}"


def short(value: str) -> str:
    """On one line, and not too long."""
    plain = " ".join(value.split())
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 3] + "..."
