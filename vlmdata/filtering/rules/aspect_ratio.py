"""The picture is not a ribbon."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.filtering.rules.base import Verdict


@dataclass(frozen=True)
class MaxAspectRatio:
    """Longer side over shorter side is at most `max_ratio`."""

    max_ratio: float

    def judge(self, facts: pa.Table) -> Verdict:
        longer = pc.cast(pc.max_element_wise(facts["width"], facts["height"]), pa.float64())
        shorter = pc.cast(pc.min_element_wise(facts["width"], facts["height"]), pa.float64())
        ratio = pc.divide(longer, shorter)
        return Verdict(
            rejected=pc.fill_null(pc.greater(ratio, self.max_ratio), False),
            code="aspect_ratio",
            value=ratio,
            bound=self.max_ratio,
        )
