"""What became of rows that were read: bytes, or why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa


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
