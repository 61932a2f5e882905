"""What a rule is: one verb over columns of facts. Counting and writing rejects is done elsewhere, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True)
class Verdict:
    """A rule's answer, one value a row of the facts.

    Attributes:
        rejected: bool (n), no nulls.
        code: stable reason code, one for all rows or one a row (n).
        value: what was measured, float64 (n), or None.
        bound: what it was held against.
        detail: words for people (n), or None.
    """

    rejected: pa.ChunkedArray
    code: str | pa.ChunkedArray
    value: pa.ChunkedArray | None = None
    bound: float | None = None
    detail: pa.ChunkedArray | None = None


class Rule(Protocol):
    """A decision over measured columns, vectorised; it never looks at pixels."""

    def judge(self, facts: pa.Table) -> Verdict:
        """Judge every row of a table with the columns of `schema.FACTS`."""
        ...
