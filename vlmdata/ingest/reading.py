"""What became of rows that were read: bytes, or why there are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from vlmdata.cuts import cuts

AT_A_TIME = 32
BYTES_AT_A_TIME = 64 << 20
"""Pictures in one reading and in one row group, and their bytes (one larger picture is alone): what is in memory."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Why a row brings no picture."""

    code: str
    detail: str
    outcome: Literal["rejected", "failed"]
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows in the order in which they were asked for; `fetches` is an account of each, where there is one."""

    pictures: Sequence[bytes | Lost]
    digests: Sequence[str | None] | None = None
    fetches: pa.Table | None = None


def slices(sizes: Sequence[int]) -> Iterator[slice]:
    """Rows that are read together, by the bytes of each; those that take no memory of their own count as none."""
    for start, stop in cuts(np.asarray(sizes, np.int64), AT_A_TIME, BYTES_AT_A_TIME):
        yield slice(start, stop)
