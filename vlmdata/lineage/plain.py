"""Rows as JSON has them: no nulls, no NaN, moments as ISO 8601."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

_INTERNAL = frozenset({"id", "key", "retryable", "caption_id"})


def plain(row: Mapping[str, Any], left_out: Collection[str] = _INTERNAL) -> dict[str, Any]:
    """What a row says, less what it does not say; a score that is not a number is none."""
    return {name: _plain(value) for name, value in row.items() if name not in left_out and _is_said(value)}


def _is_said(value: Any) -> bool:
    return value is not None and value == value


def _plain(value: Any) -> Any:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else value
