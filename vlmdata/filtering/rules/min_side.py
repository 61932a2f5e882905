"""The shorter side is long enough."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.filtering.rules.base import Verdict


@dataclass(frozen=True)
class MinSide:
    """The shorter side is at least `min_side` pixels, after EXIF orientation."""

    min_side: int

    def judge(self, facts: pa.Table) -> Verdict:
        shorter = pc.min_element_wise(facts["width"], facts["height"])
        return Verdict(
            rejected=pc.fill_null(pc.less(shorter, self.min_side), False),
            code="too_small",
            value=pc.cast(shorter, pa.float64()),
            bound=float(self.min_side),
        )
