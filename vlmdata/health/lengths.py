"""Percentiles of lengths from how often each length occurs: exact, whatever the size of the set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

LENGTHS = pa.schema(
    [
        pa.field("unit", pa.string(), nullable=False, metadata={"note": "words | characters | tokens"}),
        pa.field("language", pa.string(), metadata={"note": "null: all of them"}),
        pa.field("count", pa.int64(), nullable=False, metadata={"note": "captions"}),
        pa.field("p5", pa.float64()),
        pa.field("median", pa.float64()),
        pa.field("p95", pa.float64()),
    ]
)

_SHARES = (0.05, 0.5, 0.95)


def lengths(unit: str, counted: pa.Table) -> pa.Table:
    """Percentiles over all captions, then for each language, the most frequent first: a table of `LENGTHS`.

    `counted` has the columns `language`, `unit`'s name and `count`; null lengths are left out.
    """
    known = counted.filter(pc.is_valid(counted[unit]))
    if not known.num_rows:
        return LENGTHS.empty_table()
    totals = known.group_by("language").aggregate([("count", "sum")])
    ranked = totals.sort_by([("count_sum", "descending"), ("language", "ascending")])["language"].to_pylist()
    spoken = [(tag, known.filter(pc.equal(known["language"], tag))) for tag in ranked]
    return pa.Table.from_pylist([_row(unit, tag, rows) for tag, rows in [(None, known), *spoken]], schema=LENGTHS)


def _row(unit: str, language: str | None, rows: pa.Table) -> dict[str, Any]:
    values, counts = rows[unit].to_numpy(), rows["count"].to_numpy()
    found = percentiles(values, counts, _SHARES)
    return {
        "unit": unit,
        "language": language,
        "count": int(counts.sum()),
        **dict(zip(("p5", "median", "p95"), found, strict=True)),
    }


def percentiles(values: npt.NDArray[Any], counts: npt.NDArray[np.integer[Any]], shares: Sequence[float]) -> list[float]:
    """The value that each share of all is below, between two values by their distance: NumPy's `linear`.

    Args:
        values: (n), in any order; the same one may come more than once.
        counts: (n), how often each occurs; at least one of them is above 0.
        shares: 0 to 1.
    """
    order = np.argsort(values, kind="stable")
    ordered, reached = values[order].astype(np.float64), np.cumsum(counts[order])
    places = np.asarray(shares, np.float64) * (reached[-1] - 1)
    below = np.floor(places)
    low, high = (ordered[np.searchsorted(reached, place, side="right")] for place in (below, np.ceil(places)))
    return [_between(*three) for three in zip(low, high, places - below, strict=True)]


def _between(low: float, high: float, part: float) -> float:
    # From the nearer end, as NumPy does: so the last bits are the same.
    step = high - low
    return float(high - step * (1 - part) if part >= 0.5 else low + step * part)
