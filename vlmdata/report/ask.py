"""Search and filters over all samples of a ledger: what is asked is bound to a query, never part of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from vlmdata.report.ledger import Ledger

_LONGEST = 200
_ID = re.compile(r"[0-9a-zA-Z_-]{1,64}")


def is_id(text: str) -> bool:
    """Whether a text can be a sample's id."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True)
class Asked:
    """What is sought; none: anything.

    Attributes:
        q: Words, in whatever case and order: each is part of its id, of its name in the source or of a caption.
        stage: Where the sample ended.
        outcome: kept, rejected, held or failed.
        reason: Code of the sample or of one of its captions.
        source: Where it came from.
        language: Of one of its captions.
        low: Least best score.
        high: Greatest best score.
        after: Only those whose ids come after this one: the last of the page before.
    """

    q: str | None = None
    stage: str | None = None
    outcome: str | None = None
    reason: str | None = None
    source: str | None = None
    language: str | None = None
    low: float | None = None
    high: float | None = None
    after: str | None = None


def asked(query: Mapping[str, str]) -> Asked:
    """From the parameters of an address; what makes no sense there is not asked."""
    words = {name: query[name][:_LONGEST] for name in _WORDS if query.get(name)}
    after = query.get("after", "")
    return Asked(
        **words, low=_number(query.get("min")), high=_number(query.get("max")), after=after if is_id(after) else None
    )


_WORDS = ("q", "stage", "outcome", "reason", "source", "language")


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


_CAPTIONED = "id IN (SELECT unnest([id, owner]) FROM captions WHERE {})"
"""A near-duplicate's captions are those that the one that stays has from it."""
_CONDITIONS = {
    "stage": "stage = {}",
    "outcome": "outcome = {}",
    "source": "came_from = {}",
    "low": "score >= {}",
    "high": "score <= {}",
    "language": _CAPTIONED.format("language = {}"),
    "reason": f"(code = {{0}} OR {_CAPTIONED.format('code = {0}')}"
    " OR id IN (SELECT id FROM asked WHERE 'caption_' || failure = {0}))",
    "q": "(contains(id, {0}) OR contains(related, {0}) OR contains(lower(key), {0})"
    f" OR {_CAPTIONED.format('contains(lower(text), {0})')})",
}


def _words(text: str | None) -> list[str]:
    """What is between spaces, once each."""
    return list(dict.fromkeys((text or "").lower().split()))


def search(ledger: Ledger, wanted: Asked, most: int) -> tuple[int, list[str]]:
    """How many samples there are in all, and the ids of the next ones, in the order of ids."""
    conditions, values = ["true"], list[str | float]()
    for name, condition in _CONDITIONS.items():
        for value in _words(wanted.q) if name == "q" else [getattr(wanted, name)]:
            if value is not None:
                values.append(value)
                conditions.append(condition.format(f"${len(values)}"))
    found = f"FROM samples WHERE {' AND '.join(conditions)}"
    total = ledger.value(f"SELECT count(*) {found}", values)
    rows = ledger.rows(
        f"SELECT id {found} AND id > ${len(values) + 1} ORDER BY id LIMIT {most}", [*values, wanted.after or ""]
    )
    return total, [row["id"] for row in rows]
