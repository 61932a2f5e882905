"""A rule as data: a figure that was counted, and the bounds that it is to keep to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.config import Severity
from vlmdata.console import visible

AT_MOST = "ExpectColumnMaxToBeBetween"
AT_LEAST = "ExpectColumnMinToBeBetween"
NAMED = 5
"""Samples that a verdict names."""
_LONGEST = 80


@dataclass(frozen=True)
class Figure:
    """One number, and where it comes from.

    Attributes:
        value: What is judged; null: there is nothing to tell it from, and no bound holds.
        of: Rows that were looked at; null: the figure is not about rows.
        unit: What a row is.
        ids: The first few rows that break the rule, by name.
        seen: What they measure, in the same order.
        share: The value is a share of the rows, 0 to 1, and not a count of them.
    """

    value: float | None
    of: int | None = None
    unit: str = "samples"
    ids: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    share: bool = False


@dataclass(frozen=True)
class Rule:
    """A figure and its bounds.

    Attributes:
        name: Short and stable: what a config calls it.
        asked: What must hold, for people.
        column: What Great Expectations calls the figure.
        at_least, at_most: The bounds, both inclusive.
        expectation: The class that judges it, of `custom` or of Great Expectations.
        settings: What else that class is told.
    """

    name: str
    asked: str
    column: str
    figure: Figure
    at_least: float | None = None
    at_most: float | None = None
    expectation: str = AT_MOST
    settings: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity = "stop"


def breaking(
    names: pa.ChunkedArray | pa.Array, kept: pa.ChunkedArray | pa.Array, seen: Any, unit: str = "samples"
) -> Figure:
    """How many rows break a rule, and the first few of them.

    Args:
        names: What each row is called (n).
        kept: Whether it keeps the rule (n); null, for what was not measured, does not.
        seen: What it measures (n).
        unit: What a row is.
    """
    places = pc.indices_nonzero(pc.invert(pc.fill_null(kept, False)))
    first = places.slice(0, NAMED)
    ids, values = (said(column.take(first).to_pylist()) for column in (names, seen))
    return Figure(len(places), len(names), unit, ids, values)


def none_may(name: str, asked: str, column: str, figure: Figure, expectation: str = AT_MOST, **settings: Any) -> Rule:
    """The rule that no row breaks it."""
    return Rule(name, asked, column, figure, at_most=0, expectation=expectation, settings=settings)


def said(values: Sequence[Any]) -> tuple[str, ...]:
    """Values as words that fit on a line; strangers may have chosen them."""
    lines = [" ".join(visible(number(value)).split()) for value in values]
    return tuple(line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…" for line in lines)


def number(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "nothing"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.6g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)
