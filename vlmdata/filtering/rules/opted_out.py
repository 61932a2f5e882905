"""Nobody has asked for the picture to be left alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vlmdata.filtering.near_duplicates import pairs_within
from vlmdata.filtering.rules.base import Verdict
from vlmdata.opt_out import OptOut

NAMES = ["url", "sha256"]
"""Columns of samples that the rule reads beside the facts."""


@dataclass(frozen=True)
class OptedOut:
    """The opt-out list names neither the address nor the bytes, nor a picture within `radius` bits of this one."""

    opt_out: OptOut
    radius: int

    def judge(self, facts: pa.Table) -> Verdict:
        """Reads the columns `NAMES`, too."""
        named = [
            (url is not None and self.opt_out.refuses_url(url)) or self.opt_out.refuses_digest(digest)
            for url, digest in zip(facts["url"].to_pylist(), facts["sha256"].to_pylist(), strict=True)
        ]
        rejected = np.array(named, dtype=bool)
        rejected[self._alike(facts["phash"])] = True
        return Verdict(rejected=pa.chunked_array([rejected], pa.bool_()), code="opted_out")

    def _alike(self, phash: pa.ChunkedArray) -> np.ndarray:
        known = np.flatnonzero(np.asarray(phash.is_valid()))
        # Without the gaps: with one, all 64 bits would come as floats, which hold 53.
        hashes, which = np.unique(phash.drop_null().to_numpy(), return_inverse=True)
        near = pairs_within(hashes, self.radius, against=self.opt_out.phashes)[0]
        return known[np.isin(which, near)]
