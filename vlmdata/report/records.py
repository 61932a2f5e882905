"""Samples as the page has them: who it is, what was measured, where it ended and why, and each of its captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmdata.report.ledger import Ledger, Row
from vlmdata.report.reasons import meaning

_LONGEST = 400
"""Characters of one text."""
_CAPTIONS = 16
"""Of one sample, those that were kept first."""

_SAMPLE = (
    *("id", "key", "shard", "stage", "outcome", "code", "value", "bound", "detail", "related", "came_from", "url"),
    *("license", "bytes", "sha256", "error", "format", "width", "height", "frames", "orientation", "score"),
)
_CAPTION = ("caption_id", "text", "language", "origin", "stage", "outcome", "code", "value", "bound", "score", "model")


def records(ledger: Ledger, ids: Sequence[str]) -> list[Row]:
    """One object a sample, in the order of the ids; those that are not there are left out."""
    told = ledger.rows(f"SELECT {', '.join(_SAMPLE)}, phash FROM samples WHERE id IN (SELECT unnest(?))", [list(ids)])
    said, asked = _captions(ledger, ids), _asked(ledger, ids)
    found = {row["id"]: _record(row, said.get(row["id"], []), asked.get(row["id"], [])) for row in told}
    return [found[id_] for id_ in ids if id_ in found]


def _record(row: Row, said: list[Row], asked: list[Row]) -> Row:
    phash = row.pop("phash")
    told = _short({**row, "phash": None if phash is None else f"{phash:016x}"})
    unit = meaning(row["code"]).unit if row["code"] else ""
    captions = [_short(caption) for caption in said]
    more = {"unit": unit or None, "captions": captions or None, "asked": [_short(one) for one in asked] or None}
    return {**told, **{name: value for name, value in more.items() if value is not None}}


def _captions(ledger: Ledger, ids: Sequence[str]) -> dict[str, list[Row]]:
    """A sample's captions; a near-duplicate's are those that the one that stays has from it."""
    rows = ledger.rows(
        f"SELECT of, {', '.join(_CAPTION)} FROM ("
        "  SELECT id AS of, * FROM captions WHERE id IN (SELECT unnest($1))"
        "  UNION ALL SELECT owner AS of, * FROM captions WHERE owner IN (SELECT unnest($1))"
        ") QUALIFY row_number() OVER (PARTITION BY of ORDER BY outcome <> 'kept', score DESC NULLS LAST, caption_id)"
        f" <= {_CAPTIONS} ORDER BY of, outcome <> 'kept', score DESC NULLS LAST, caption_id",
        [list(ids)],
    )
    return _by(rows, "of")


def _asked(ledger: Ledger, ids: Sequence[str]) -> dict[str, list[Row]]:
    return _by(ledger.rows("SELECT * FROM asked WHERE id IN (SELECT unnest(?)) ORDER BY ALL", [list(ids)]), "id")


def _by(rows: Sequence[Row], name: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.pop(name), []).append(row)
    return found


def _short(row: Row) -> Row:
    return {name: _plain(value) for name, value in row.items() if value is not None}


def _plain(value: Any) -> Any:
    """Numbers with the digits that count (a float32 has seven), texts with so many characters."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, str) and len(value) > _LONGEST:
        return f"{value[: _LONGEST - 1]}…"
    return value
