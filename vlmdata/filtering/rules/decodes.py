"""A picture decodes whole, or its decoder's reason code is the reason."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.filtering.rules.base import Verdict


@dataclass(frozen=True)
class Decodes:
    """The decoder reached the last byte within its limits.

    Codes: empty_file, not_an_image, unsupported_format, truncated, corrupt,
    too_many_pixels, out_of_memory, decoder_crashed; decode_timeout is a
    failure, not a rejection.
    """

    max_pixels: int

    def judge(self, facts: pa.Table) -> Verdict:
        pixels = pc.multiply(pc.cast(facts["width"], pa.int64()), pc.cast(facts["height"], pa.int64()))
        bomb = pc.fill_null(pc.equal(facts["error"], "too_many_pixels"), False)
        return Verdict(
            rejected=pc.is_valid(facts["error"]),
            code=pc.fill_null(facts["error"], ""),
            value=pc.if_else(bomb, pc.cast(pixels, pa.float64()), pa.scalar(None, pa.float64())),
            bound=float(self.max_pixels),
            detail=facts["detail"],
        )
