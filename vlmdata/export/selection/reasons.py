"""Why samples are not exported: of several reasons the first counts."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Flags = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]


class Reasons:
    """The reason of each of n samples, or none."""

    def __init__(self, count: int) -> None:
        self._outcome = np.full(count, None, object)
        self._code = np.full(count, None, object)
        self._value = np.full(count, np.nan)
        self._bound = np.full(count, np.nan)
        self._detail = np.full(count, None, object)

    @property
    def none(self) -> Flags:
        """bool (n,): who is still to be exported."""
        flags: Flags = np.asarray(self._code == None)  # noqa: E711, element by element
        return flags

    def give(
        self,
        rows: Positions,
        code: str,
        *,
        value: Any = np.nan,
        bound: Any = np.nan,
        detail: Any = None,
        outcome: Literal["rejected", "held"] = "rejected",
    ) -> None:
        """These samples, which had none, have a reason: what was measured of each, its bound, and words for people."""
        self._outcome[rows], self._code[rows], self._detail[rows] = outcome, code, detail
        self._value[rows], self._bound[rows] = value, bound

    def columns(self) -> list[pa.Array]:
        """outcome, code, value, bound and detail (n,); no number is infinite."""
        words = [pa.array(column, pa.string()) for column in (self._outcome, self._code)]
        numbers = [pa.array(column, pa.float64(), mask=~np.isfinite(column)) for column in (self._value, self._bound)]
        return [*words, *numbers, pa.array(self._detail, pa.string())]
